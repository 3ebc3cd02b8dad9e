"""The work of a phase, in a thread of its own: train or measure, write the model, seal the result into the outbox.

The only place that imports the trainer, and so torch, and only when there is work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_client.data.features import Features
from floe import weights
from floe.config import Config
from floe.errors import FloeError, Refused
from floe.files import write_atomically
from floe.keyring import Keyring
from floe.messages import Phase, Round
from floe.parcel import Parcel, pack
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Done:
    """The result of a phase is in the outbox."""

    phase: Phase
    report: Report
    parcel: Parcel


@dataclass(frozen=True)
class Failed:
    """The work could not be done or kept; it may be tried again."""

    phase: Phase
    reason: str


class Worker:
    """Works on one phase at a time; `post` is called from its thread with `Done` or `Failed`, not after `cancel`."""

    def __init__(
        self, config: Config, features: Features, keyring: Keyring, outbox: Path, post: Callable[[object], None]
    ) -> None:
        self._config = config
        self._features = features
        self._keyring = keyring
        self._outbox = outbox
        self._post = post
        self._trainer: Any = None
        self._plan: Plan | None = None
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self.phase: Phase | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, order: Round, base: Path | None, *, fault: str = "") -> None:
        """Begin the work that a round asks for; `base` is the file of the global model, `fault` why there is none."""
        self._cancelled = threading.Event()
        self.phase = order.phase
        self._thread = threading.Thread(target=self._run, args=(order, base, fault, self._cancelled), daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop soon: the round is over, or the process ends."""
        self._cancelled.set()

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, order: Round, base: Path | None, fault: str, cancelled: threading.Event) -> None:
        from edge_client.evaluate import Interrupted

        try:
            given_up: tuple[Arrays, Report] = ({}, Report(failure=f"the global model cannot be used: {fault}"[:500]))
            arrays, report = given_up if fault else self._work(order, base, cancelled.is_set)
            if not cancelled.is_set():
                self._post(Done(order.phase, report, self._pack(order, arrays, report)))
        except Interrupted:
            pass
        except Exception as error:  # a model of the user's own may raise anything: it must not end the device
            if not cancelled.is_set():
                self._post(Failed(order.phase, f"{type(error).__name__}: {error}"))

    def _work(self, order: Round, base: Path | None, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        """What is to be sent: arrays (none for a report alone), and the report. A fault of the data is a report too."""
        try:
            arrays = self._base(order, base)
            trainer = self._trainer_for(order.plan)
            if order.phase.task in ("sums", "init"):
                if self._reports(order) == "accuracy":
                    return {}, Report(failure="this device sends no weights (report = accuracy)")
                return (trainer.sums() if order.phase.task == "sums" else trainer.initial()), Report()
            if order.phase.task == "evaluate":
                report: Report = trainer.evaluate(arrays)
                self._keep(arrays, report, order)
                return {}, report
            trained, report = trainer.train(
                arrays or trainer.initial(), device=self._config.device.id, round=order.phase.round, stop=stop
            )
            scaling = {name: array for name, array in arrays.items() if name.startswith("scaling.")}
            self._keep({**trained, **scaling}, report, order)
            return (trained if self._reports(order) == "weights" else {}), report
        except (FloeError, Refused) as error:
            return {}, Report(failure=" ".join(str(error).split())[:500])

    def _reports(self, order: Round) -> str:
        return "accuracy" if "accuracy" in (order.plan.report, self._config.device.report) else "weights"

    def _base(self, order: Round, base: Path | None) -> Arrays:
        """The weights to start from: the round's base; without one, what this device has learned so far."""
        if base is None:
            base = self._model_path()
            if order.phase.task in ("sums", "init") or not base.exists():
                return {}
        layout = weights.read_layout_of(base)
        schema = Schema.from_json(layout.metadata.get("schema", "{}"))
        if difference := self._features.schema.difference(schema):
            raise Refused("schema", difference)
        return weights.read(base)

    def _trainer_for(self, plan: Plan) -> Any:
        from edge_client.trainer import Trainer

        if self._trainer is None or self._plan != plan:
            self._trainer = Trainer(self._features, plan, self._config.models, self._config.device.threads)
            self._plan = plan
        return self._trainer

    def _keep(self, arrays: Arrays, report: Report, order: Round) -> None:
        """Write the device's model, and beside it what a user of the model needs to know."""
        path = self._model_path()
        weights.write(path, arrays, {"schema": self._features.schema.to_json()})
        about = {"model": order.plan.model, "round": order.phase.round, "task": order.phase.task, "report": report}
        write_atomically(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(about)) + b"\n")

    def _model_path(self) -> Path:
        return self._config.path(self._config.paths.models) / f"{self._config.device.id}.safetensors"

    def _pack(self, order: Round, arrays: Arrays, report: Report) -> Parcel:
        source = None
        if arrays:
            source = self._outbox / "result.safetensors"
            ready = {name: np.asarray(array) for name, array in arrays.items()}
            weights.write(source, ready, {"schema": self._features.schema.to_json()})
        try:
            return pack(
                self._outbox, source, msgspec.json.encode(report).decode(), self._keyring,
                federation=self._config.federation.name, phase=order.phase, kind="update",
                sender=self._config.device.id, base=order.base.sha256 if order.base else "",
            )  # fmt: skip
        finally:
            if source is not None:
                source.unlink(missing_ok=True)
