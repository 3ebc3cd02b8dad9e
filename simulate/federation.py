"""The devices of a federation one after the other, and the aggregator's own rounds around them. No socket.

What decides is the aggregator's (`aggregator.conduct`, `chain`, `intake`, `log`), what a device does is the device's
(`edge_client.task`): so the global models are those of a federation over a broker, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from aggregator.chain import Chain
from aggregator.conduct import Conductor
from aggregator.control import Control
from aggregator.intake import check_report, check_weights
from aggregator.log import Log, Outcome
from aggregator.phases import Policy
from aggregator.rounds import next_due
from aggregator.states import Answered, Online, State, Tick
from edge_client.data.load import load
from edge_client.interrupted import Interrupted
from edge_client.own import Arrays
from edge_client.task import Base, Read, Task, read_base
from floe import weights
from floe.errors import ConfigError, DataError, Refused
from floe.files import hash_of
from floe.identity import Identity
from floe.keyring import Keyring, open_meta
from floe.messages import Core, Phase
from floe.parcel import seal_meta
from floe.report import Report
from floe.seal import sealer
from floe.settings import Config
from floe.transfer import name_of
from simulate.voice import Clock, Silent, stands_still

KEY = "simulated"  # in the place of a device's key: no real device can take its name in this log


class Federation:
    """One lineage, and the devices whose feature folders are in `devices`, by name."""

    def __init__(self, config: Config, devices: Mapping[str, Path], identity: Identity, log: Log, state: Path) -> None:
        """Goes on where the log ends. Raises `ConfigError`, `StoreError`, `KeyFileError`."""
        self._config = config
        self._devices = devices
        self._log = log
        self._state_folder = state
        self._keyring = Keyring("plaintext", None)
        self._clock = Clock()
        self._voice = Silent(config.federation.name, identity)
        self._pin()
        self._policy = Policy(config.rounds, config.plan)
        self.chain = Chain(config, log, state, identity, self._keyring)
        self._conductor = Conductor(
            self._voice, self.chain, self._voice, log, self._keyring, self._policy, Control, _nothing, self._clock
        )
        self._base: tuple[str, Base] | None = None

    @property
    def state(self) -> State:
        return self._conductor.state

    def run(self, stop: Callable[[], bool], closed: Callable[[Phase], bool]) -> None:
        """Phase after phase, until the last, until told to stop, or until `closed` says of one that it is enough.

        Raises `DataError` for a phase to which no device could contribute.
        """
        for device in sorted(self._devices):
            self._conductor.step(Online(device))
        self._conductor.step(Tick())
        self._conductor.perform()
        while self.state.stage != "finished" and not stop():
            phase = self.state.phase
            if self.state.stage != "open":
                self._wait()
            elif not self._phase(phase, stop) or closed(phase):
                return

    def _phase(self, phase: Phase, stop: Callable[[], bool]) -> bool:
        """One phase; whether it has ended."""
        for device in sorted(self.state.expected):
            if self._is_open(phase) and device not in self.state.accepted | self.state.refused:
                try:
                    self._take_part(device, phase, stop)
                except Interrupted:
                    return False
            if stop():
                break
        while self._is_open(phase) and not stop():
            self._wait()
        if not self._is_open(phase):
            self._check_success(phase)
        return not self._is_open(phase)

    def _is_open(self, phase: Phase) -> bool:
        return self.state.stage == "open" and self.state.phase == phase

    def _take_part(self, device: str, phase: Phase, stop: Callable[[], bool]) -> None:
        """What a device would do, and the aggregator with what it sends."""
        features = load(str(self._devices[device]), {}, Path())
        task = Task(self._config, device, features, self._state_folder / "devices" / device, _nothing)
        plan, read = self.state.plan, self._reader(phase)
        if read is not None and self.chain.model is not None:
            self._voice.sent_bytes += self.chain.model.path.stat().st_size
        arrays, report = task.do(phase, plan, read, stop)
        if stop() and report.failure:
            raise Interrupted
        accepted = self._receive(device, phase, arrays, report, features.schema.to_json())
        self._conductor.step(Answered(device, accepted))
        self._conductor.perform()

    def _receive(self, device: str, phase: Phase, arrays: Arrays, report: Report, schema: str) -> bool:
        """Check, spool and record an update, as `aggregator.receiver` does; whether it is accepted."""
        ready = {name: np.asarray(array) for name, array in arrays.items()}
        size = sum(len(buffer) for buffer in weights.buffers(ready, {"schema": schema})) if ready else 0
        core, _ = seal_meta(
            msgspec.json.encode(report).decode(), self._keyring, federation=self._config.federation.name, phase=phase,
            kind="update", sender=device, base=self._base[0] if self._base else "", size=size,
        )  # fmt: skip
        sha256, outcome, reason, detail = None, "accepted", "", ""
        try:
            report = open_meta(sealer(core, b""), core, Report)
            check_report(report, core, self.state.plan)
            if ready:
                sha256 = self._spool(device, phase, core, ready, schema)
        except Refused as refusal:
            outcome, reason, detail = "rejected", refusal.reason, refusal.detail
        self._voice.received_bytes += size
        ended = Outcome(name_of(core), device, phase, outcome, reason, detail)
        self._log.update(ended, report, bytes_=size, sha256=sha256, suite=core.suite)
        return outcome == "accepted"

    def _spool(self, device: str, phase: Phase, core: Core, arrays: Arrays, schema: str) -> str:
        path = self.chain.spool.path(device, phase, phase)
        weights.write(path, arrays, {"schema": schema})
        try:
            self.chain.accept_schema(check_weights(path, core, self.chain.expectation(phase)))
        except Refused:
            path.unlink()
            raise
        return hash_of(path)

    def _reader(self, phase: Phase) -> Read | None:
        """What reads the present model, which is the base of the phase; once for all devices."""
        model = self.chain.model
        if model is None or phase.task not in ("train", "evaluate"):
            self._base = None
            return None
        if self._base is None or self._base[0] != model.sha256:
            self._base = (model.sha256, read_base(model.path))
        base = self._base[1]
        return lambda: base

    def _wait(self) -> None:
        """Time passes, until something comes of it. Raises `ConfigError` if nothing ever will."""
        before = self.state
        due = next_due(before, self._policy)
        self._clock.wait_until(due if due is not None else 0.0)
        self._conductor.step(Tick())
        self._conductor.perform()
        if stands_still(before, self.state):
            raise ConfigError(
                f"{before.phase.task} {before.phase.round} needs {before.needed} devices, there are "
                f"{len(before.online)}: lower [rounds] devices or quorum"
            )

    def _check_success(self, phase: Phase) -> None:
        ended = self._log.ended(phase)
        row = self._log.round(phase)
        refused = [f"{update['device']}: {update['detail']}" for update in ended if update["outcome"] == "rejected"]
        if row is not None and row["state"] == "void" and (phase.round == 0 or len(refused) == len(ended)):
            why = refused[0] if refused else "fewer updates than its quorum"
            raise DataError(f"{phase.task} {phase.round} came to nothing: {why}")

    def _pin(self) -> None:
        """Every device gets its row in the log. Raises `ConfigError` for a log of real devices."""
        for row in self._log.db.query("SELECT device, key FROM devices"):
            if row["key"] != KEY:
                raise ConfigError(
                    f"{self._log.path} has a device {row['device']!r} that is no simulated one: choose other folders "
                    "([paths] log, models, state), or another working directory"
                )
        with self._log.db.atomic():
            for device in sorted(self._devices):
                self._log.enrolled(device, KEY, "approved")


def _nothing(*arguments: object) -> None:
    """There is nothing on its way, and no user of a device."""
