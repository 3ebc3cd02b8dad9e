"""The work of a phase, in a thread of its own: train or measure, write the model, seal the result into the outbox.

The only place that imports Floe's trainer, and so torch, and only when there is work for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from edge_client.data.features import Features
from edge_client.interrupted import Interrupted
from edge_client.local import LocalModels
from edge_client.own import Arrays, Trainer, own_trainer
from floe import weights
from floe.errors import FloeError, Refused, StoreError
from floe.files import write_atomically
from floe.keyring import Keyring
from floe.messages import Phase, Round
from floe.parcel import Parcel, pack
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema
from floe.settings import Config


@dataclass(frozen=True)
class Done:
    """The result of a phase is in the outbox."""

    phase: Phase
    report: Report
    parcel: Parcel


@dataclass(frozen=True)
class Failed:
    """The disk or the memory had no room for the work or its result; it is to be tried again."""

    phase: Phase
    reason: str


class Worker:
    """Works on one phase at a time, in a thread of its own, which calls `post` with `Done` or `Failed`.

    After `cancel` it may still post once: a result that was being sealed is in the outbox already. `state` is the
    device's folder: results go to `outbox` in it.
    """

    def __init__(
        self, config: Config, features: Features, keyring: Keyring, state: Path, post: Callable[[object], None]
    ) -> None:
        self._config = config
        self._features = features
        self._keyring = keyring
        self._outbox = state / "outbox"
        self._local = LocalModels(state / "local")
        self._post = post
        self._trainer: Trainer | None = None
        self._plan: Plan | None = None
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self.phase: Phase | None = None
        self.done: Phase | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, order: Round, base: BinaryIO | None, *, fault: str = "") -> None:
        """Begin the work that a round asks for; `fault` says why there is no global model.

        `base` is the global model, open: its path may have been given to the next one before it is read. It is closed.
        """
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

    def _run(self, order: Round, base: BinaryIO | None, fault: str, cancelled: threading.Event) -> None:
        try:
            given_up: tuple[Arrays, Report] = ({}, _failure(f"the global model cannot be used: {fault}"))
            with base or nullcontext():
                arrays, report = given_up if fault else self._work(order, base, cancelled.is_set)
            if not cancelled.is_set():
                result = Done(order.phase, report, self._pack(order, arrays, report))
                self.done = order.phase
                self._post(result)
        except Interrupted:
            pass
        except Exception as error:  # whatever it is, the device goes on
            if not cancelled.is_set():
                self._post(Failed(order.phase, f"{type(error).__name__}: {error}"))

    def _work(self, order: Round, base: BinaryIO | None, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        """What is to be sent: arrays (none for a report alone), and the report.

        What would fail again is a report too, so that the round does not wait for it: a fault of the data, and
        anything that a model of the user's own raises. Raises what the disk or the memory had no room for.
        """
        try:
            return self._result(order, base, stop)
        except (StoreError, OSError, MemoryError, Interrupted):
            raise
        except FloeError as error:
            return {}, _failure(str(error))
        except (Exception, SystemExit) as error:
            return {}, _failure(f"model {order.plan.model!r}: {type(error).__name__}: {error}")

    def _result(self, order: Round, base: BinaryIO | None, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        arrays = self._base(order, base)
        trainer = self._trainer_for(order.plan)
        if order.phase.task in ("sums", "init"):
            if self._reports(order) == "accuracy":
                return {}, _failure("this device sends no weights (report = accuracy)")
            return (trainer.sums() if order.phase.task == "sums" else trainer.initial()), Report()
        if order.phase.task == "evaluate":
            report: Report = trainer.evaluate(arrays)
            self._keep(arrays, report, order)
            return {}, report
        trained, report = trainer.train(
            arrays or trainer.initial(), device=self._config.device.id, round=order.phase.round, stop=stop
        )
        if base is None:
            self._local.keep(order.phase, trained, {"schema": self._features.schema.to_json()})
        scaling = {name: array for name, array in arrays.items() if name.startswith("scaling.")}
        self._keep({**trained, **scaling}, report, order)
        return (trained if self._reports(order) == "weights" else {}), report

    def _reports(self, order: Round) -> str:
        return "accuracy" if "accuracy" in (order.plan.report, self._config.device.report) else "weights"

    def _base(self, order: Round, base: BinaryIO | None) -> Arrays:
        """The weights to start from: the round's base; without one, what this device had learned before the round."""
        source = base or self._local.before(order.phase)
        if source is None or (base is None and order.phase.task != "train"):
            return {}
        layout = weights.read_layout_of(source)
        schema = Schema.from_json(layout.metadata.get("schema", "{}"))
        if difference := self._features.schema.difference(schema):
            raise Refused("schema", difference)
        return weights.read(source)

    def _trainer_for(self, plan: Plan) -> Trainer:
        if self._trainer is None or self._plan != plan:
            self._trainer = trainer_for(self._config, self._features, plan)
            self._plan = plan
        return self._trainer

    def _keep(self, arrays: Arrays, report: Report, order: Round) -> None:
        """Write the model for the device's user, and beside it what they need to know; nothing here reads it."""
        path = self._config.path(self._config.paths.models) / f"{self._config.device.id}.safetensors"
        weights.write(path, arrays, {"schema": self._features.schema.to_json()}, sync=False)
        about = {"model": order.plan.model, "round": order.phase.round, "task": order.phase.task, "report": report}
        write_atomically(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(about)) + b"\n", sync=False)

    def _pack(self, order: Round, arrays: Arrays, report: Report) -> Parcel:
        ready = {name: np.asarray(array) for name, array in arrays.items()}
        source = weights.buffers(ready, {"schema": self._features.schema.to_json()}) if ready else None
        return pack(
            self._outbox, source, msgspec.json.encode(report).decode(), self._keyring,
            federation=self._config.federation.name, phase=order.phase, kind="update",
            sender=self._config.device.id, base=order.base.sha256 if order.base else "",
        )  # fmt: skip


def trainer_for(config: Config, features: Features, plan: Plan) -> Trainer:
    """What trains by a plan: the user's own, or Floe's. Raises `ConfigError`, `DataError`."""
    if own := config.trainers.get(plan.model):
        return own_trainer(plan.model, own, features, plan)
    from edge_client import trainer

    return trainer.Trainer(features, plan, config.models, config.device.threads)


def _failure(text: str) -> Report:
    """A report that the device could not do its part; `text` may come from anywhere."""
    clean = " ".join(text.encode(errors="replace").decode().split())
    return Report(failure=clean[:500])
