"""The work of a phase, in a thread of its own: do its task, write the model, seal the result into the outbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_client.data.features import Features
from edge_client.interrupted import Interrupted
from edge_client.own import Arrays
from edge_client.task import Read, Task, failure, read_base
from floe import weights
from floe.files import write_atomically
from floe.keyring import Keyring
from floe.messages import Phase, Round
from floe.parcel import Buffers, Parcel, pack
from floe.plan import Plan
from floe.report import Report
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
        self._task = Task(config, config.device.id, features, state / "local", self._keep)
        self._post = post
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
            given_up: tuple[Buffers | None, Report] = (None, failure(f"the global model cannot be used: {fault}"))
            with base or nullcontext():
                read = partial(read_base, base) if base else None
                done = given_up if fault else self._do(order, read, cancelled)
            if not cancelled.is_set():
                result = Done(order.phase, done[1], self._pack(order, *done))
                self.done = order.phase
                self._post(result)
        except Interrupted:
            pass
        except Exception as error:  # whatever it is, the device goes on
            if not cancelled.is_set():
                self._post(Failed(order.phase, f"{type(error).__name__}: {error}"))

    def _do(self, order: Round, read: Read | None, cancelled: threading.Event) -> tuple[Buffers | None, Report]:
        return self._task.do(order.phase, order.plan, read, cancelled.is_set, order.threshold)

    def _keep(self, arrays: Arrays, report: Report, phase: Phase, plan: Plan) -> None:
        """Write the model for the device's user, and beside it what they need to know; nothing here reads it."""
        path = self._config.path(self._config.paths.models) / f"{self._config.device.id}.safetensors"
        weights.write(path, arrays, {"schema": self._features.schema.to_json()}, sync=False)
        about = {"model": plan.model, "round": phase.round, "task": phase.task, "report": report}
        write_atomically(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(about)) + b"\n", sync=False)

    def _pack(self, order: Round, source: Buffers | None, report: Report) -> Parcel:
        return pack(
            self._outbox, source, msgspec.json.encode(report).decode(), self._keyring,
            federation=self._config.federation.name, phase=order.phase, kind="update",
            sender=self._config.device.id, base=order.base.sha256 if order.base else "",
        )  # fmt: skip
