"""The global model after every round: measured on test rows that belong to no device, told, and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from aggregator.log import Log
from aggregator.making import plan_of
from aggregator.phases import Progress, reason_to_stop
from aggregator.registry import Model
from edge_client.data.load import load
from edge_client.task import Task, read_base
from floe.errors import DataError
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Metrics
from floe.settings import Config, Rounds
from simulate.results import Results, record_of, words


class Examiner:
    """Measures models on the test rows of one feature folder; an autoencoder's threshold is from its training rows."""

    def __init__(self, config: Config, folder: Path, state: Path) -> None:
        """Raises `DataError` for a folder without features."""
        features = load(str(folder.absolute()), {}, Path())
        self._folder = folder
        self._task = Task(config, "test", features, state / "test", lambda *_: None)

    def measure(self, model: Path, phase: Phase, plan: Plan) -> Metrics:
        """Metrics of a global model. Raises `DataError` if it does not fit the rows."""
        about = Phase(phase.lineage, phase.epoch, phase.round, "evaluate")
        plan = msgspec.structs.replace(
            plan, privacy="none"
        )  # these rows are no device's, and nothing is learned of them
        _, report = self._task.do(about, plan, lambda: read_base(model), lambda: False)
        if report.before is None:
            raise DataError(f"--test {self._folder}: {report.failure}")
        return report.before


class Judge:
    """Tells of every training round once, in a line and in the file of results.

    With an examiner it also says whether the target is reached, on the examiner's rows.
    """

    def __init__(self, rounds: Rounds, log: Log, results: Results, examiner: Examiner | None) -> None:
        self._rounds = rounds
        self._log = log
        self._results = results
        self._examiner = examiner

    @property
    def measures(self) -> bool:
        """Whether it has test rows."""
        return self._examiner is not None

    def __call__(self, closed: Phase, model: Model | None) -> str:
        """Why no more rounds are needed after a phase of training or evaluation; empty if they are.

        After a restart it is asked about the last round again, which has its line already, or has it now.
        """
        phase = Phase(closed.lineage, closed.epoch, closed.round, "train")
        record = self._results.of(phase, model.sha256 if model else None) or self._told(phase, model)
        if record is None or self._examiner is None:
            return ""
        return reason_to_stop(Progress(record[self._rounds.metric]), self._rounds)

    def _told(self, phase: Phase, model: Model | None) -> dict[str, Any] | None:
        row = self._log.round(phase)
        if row is None or row["state"] != "closed":
            return None
        measured = self._examiner.measure(model.path, phase, plan_of(row)) if self._examiner and model else None
        record = record_of(row, self._log.merged(phase), model.sha256 if model else None, measured)
        self._results.add(record)
        click.echo(words(record))
        return record
