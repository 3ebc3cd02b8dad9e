"""The global model on test rows that belong to no device: how papers measure."""

from __future__ import annotations

from pathlib import Path

from edge_client.data.load import load
from edge_client.task import Task, read_base
from floe.errors import DataError
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Metrics
from floe.settings import Config


class Examiner:
    """Measures models on the test rows of one feature folder; an autoencoder's threshold is from its training rows."""

    def __init__(self, config: Config, folder: Path, state: Path) -> None:
        """Raises `DataError` for a folder without features."""
        features = load(str(folder.absolute()), {}, Path())
        self._folder = folder
        self._task = Task(config, "test", features, state / "devices", lambda *_: None)

    def measure(self, model: Path, phase: Phase, plan: Plan) -> Metrics:
        """Metrics of a global model. Raises `DataError` if it does not fit the rows."""
        about = Phase(phase.lineage, phase.epoch, phase.round, "evaluate")
        _, report = self._task.do(about, plan, lambda: read_base(model), lambda: False)
        if report.before is None:
            raise DataError(f"--test {self._folder}: {report.failure}")
        return report.before
