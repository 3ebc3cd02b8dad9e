"""The devices of a federation one after the other, and the aggregator's own rounds around them. No socket.

What decides is the aggregator's (`aggregator.conduct`, `chain`, `intake`, `log`), what a device does is the device's
(`edge_client.task`): so the global models are those of a federation over a broker, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from aggregator.chain import Chain
from aggregator.conduct import Conductor
from aggregator.control import Control
from aggregator.intake import check_report, check_weights, decode, is_coded
from aggregator.log import Log, Outcome
from aggregator.phases import MEASURING, Policy
from aggregator.registry import Model
from aggregator.rounds import has_answer, needed, next_due
from aggregator.states import Answered, State, Tick
from edge_client.data.load import load
from edge_client.interrupted import Interrupted
from edge_client.task import Base, Read, Task, read_base
from floe.errors import ConfigError, DataError, Refused, StoreError
from floe.files import hash_of, replacing, sync
from floe.identity import Identity
from floe.keyring import Keyring, open_meta
from floe.messages import Core, Phase
from floe.parcel import Buffers, seal_meta
from floe.report import Report
from floe.seal import sealer
from floe.service import log as tell
from floe.settings import Config
from floe.terminal import printable
from floe.transfer import name_of
from simulate import again
from simulate.results import void_words
from simulate.voice import Clock, Silent, stands_still

DEVICES = "devices"  # in the state folder: a folder for each, of what it keeps for itself
KEY = "simulated"  # in the place of a device's key: no real device can take its name in this log

Judge = Callable[[Phase, Model | None], str]


class _JudgedChain(Chain):
    """The aggregator's chain, with one more reason to stop."""

    judge: Judge

    def enough(self, closed: Phase, control: Control) -> str:
        """Why no more rounds are needed after a phase; empty if they are."""
        if closed.task not in ("train", *MEASURING):
            return ""
        return self.judge(closed, self.model) or super().enough(closed, control)


class _Rounds(Conductor):
    """The aggregator's rounds, which may end where one comes to nothing, before anything follows it."""

    check: Callable[[Phase, str], None]

    def tell_waiting(self) -> None:
        """All devices are here: nobody is waited for."""

    def _void(self, fault: str = "") -> None:
        phase = self.state.phase
        super()._void(fault)
        self.check(phase, fault)


class Federation:
    """One lineage, and the devices whose feature folders are in `devices`, by name."""

    def __init__(
        self, config: Config, devices: Mapping[str, Path], identity: Identity, log: Log, state: Path, judge: Judge
    ) -> None:
        """Goes on where the log ends. `judge` is asked after every round, with the global model, whether it is enough:
        why, or "". Raises `ConfigError`, `StoreError`, `KeyFileError`.
        """
        self._config = config
        self._devices = devices
        self._log = log
        self._state_folder = state
        self._keyring = Keyring("plaintext", None)
        self._clock = Clock()
        self._voice = Silent(config.federation.name, identity)
        self._pin()
        self._policy = Policy(config.rounds, config.plan)
        self._chain = _JudgedChain(config, log, state, identity, self._keyring)
        self._chain.judge = judge
        self._give_up()
        again.check_plan(config.plan, log, config.rounds.lineage)
        self._control = control = again.control_of(log, config.rounds)
        self._conductor = _Rounds(
            self._voice, self._chain, self._voice, log, self._keyring, self._policy, lambda: control, _nothing,
            self._clock,
        )  # fmt: skip
        self._conductor.check = self._check_success
        self._base: tuple[str, Base] | None = None

    @property
    def _state(self) -> State:
        return self._conductor.state

    def run(self, stop: Callable[[], bool]) -> None:
        """Phase after phase, until the last, or until told to stop; where that has closed already, it says so.

        Raises `DataError` for a phase that has failed (`again.refusals`): what follows waits for the next start, and
        for the plan that is given then. Also where every round was void.
        """
        # All at once: one after the other, a round would open with those who have come first.
        self._conductor.state = replace(self._state, online=frozenset(self._devices), unheard=frozenset())
        self._conductor.step(Tick())
        self._conductor.perform()
        if said := self._unused():
            tell(said)
        with suppress(Interrupted):
            while self._state.stage != "finished":
                if stop():
                    raise Interrupted
                if self._state.stage == "open":
                    self._phase(self._state.phase, stop)
                else:
                    self._wait()
            self._check_models(self._state.phase)

    def _phase(self, phase: Phase, stop: Callable[[], bool]) -> None:
        """One phase, to its end. Raises `Interrupted`."""
        if gone := self._state.expected - set(self._devices):
            raise DataError(
                f"{phase.task} {phase.round} has begun with {min(gone)}, whose feature folder is gone: bring it back, "
                f"or begin a new run in {again.FOLDERS}"
            )
        for device in sorted(self._state.expected):
            if self._is_open(phase) and not has_answer(device, self._state):
                self._take_part(device, phase, stop)
        while self._is_open(phase):
            self._wait()

    def _is_open(self, phase: Phase) -> bool:
        return self._state.stage == "open" and self._state.phase == phase

    def _take_part(self, device: str, phase: Phase, stop: Callable[[], bool]) -> None:
        """What a device would do, and the aggregator with what it sends."""
        features = load(str(self._devices[device]), {}, Path())
        task = Task(self._config, device, features, self._state_folder / DEVICES / device, _nothing)
        plan, read = self._state.plan, self._reader(phase)
        if read is not None and (parcel := self._chain.parcel()):
            self._voice.sent_bytes += parcel.core.size
        try:
            file, report = task.do(phase, plan, read, stop, self._chain.threshold)
        except (OSError, MemoryError) as error:
            raise StoreError(f"{device}: {type(error).__name__}: {error}") from None
        if stop():
            raise Interrupted
        accepted = self._receive(device, phase, file, report)
        self._conductor.step(Answered(device, accepted))
        self._conductor.perform()

    def _receive(self, device: str, phase: Phase, file: Buffers | None, report: Report) -> bool:
        """Check, spool and record an update, as `aggregator.receiver` does; whether it is accepted."""
        size = sum(len(buffer) for buffer in file or ())
        core, _ = seal_meta(
            msgspec.json.encode(report).decode(), self._keyring, federation=self._config.federation.name, phase=phase,
            kind="update", sender=device, base=self._base[0] if self._base else "", size=size,
        )  # fmt: skip
        sha256, outcome, reason, detail = None, "accepted", "", ""
        try:
            report = open_meta(sealer(core, b""), core, Report)
            check_report(report, core, self._state.plan)
            if file:
                sha256 = self._spool(device, phase, core, file)
        except Refused as refusal:
            outcome, reason, detail = "rejected", refusal.reason, refusal.detail
        self._voice.received_bytes += size
        ended = Outcome(name_of(core), device, phase, outcome, reason, detail)
        self._log.update(ended, report, bytes_=size, sha256=sha256, suite=core.suite)
        return outcome == "accepted"

    def _spool(self, device: str, phase: Phase, core: Core, file: Buffers) -> str:
        path, expected = self._chain.spool.path(device, phase, phase), self._chain.expectation(phase)
        with replacing(path, sync=False) as out:
            out.writelines(file)
        try:
            if is_coded(core, expected.plan):
                decode(path, expected, path)
            self._chain.accept_schema(check_weights(path, core, expected))
        except Refused:
            path.unlink()
            raise
        sync(path)
        return hash_of(path)

    def _reader(self, phase: Phase) -> Read | None:
        """What reads the present model, which is the base of the phase; once for all devices."""
        model = self._chain.model
        if model is None or phase.task not in ("train", *MEASURING):
            self._base = None
            return None
        if self._base is None or self._base[0] != model.sha256:
            self._base = (model.sha256, read_base(model.path))
        base = self._base[1]
        return lambda: base

    def _wait(self) -> None:
        """Time passes, until something comes of it. Raises `ConfigError` if nothing ever will."""
        before = self._state
        due = next_due(before, self._policy)
        self._clock.wait_until(due if due is not None else 0.0)
        self._conductor.step(Tick())
        self._conductor.perform()
        if stands_still(before, self._state):
            raise ConfigError(
                f"{before.phase.task} {before.phase.round} needs {needed(before, self._policy)} devices, there are "
                f"{len(before.online)}: lower [rounds] devices or quorum"
            )

    def _give_up(self) -> None:
        """A phase that all have refused before a kill comes to nothing now, as it would have then."""
        if phase := again.refused_by_all(self._log, self._config.rounds.lineage):
            self._log.event("warning", "void", f"{phase.task} {phase.round} came to nothing: {self._chain.void(phase)}")

    def _check_success(self, phase: Phase, fault: str) -> None:
        """Of a phase that came to nothing: what is told of it, or `DataError` if it has failed."""
        if not (refused := again.refusals(self._log, phase)):
            click.echo(void_words(phase, self._log.ended(phase), fault))
            return
        first, others = refused[0], len(refused) - 1
        raise DataError(
            f"{phase.task} {phase.round} came to nothing: {first['device']} ({self._devices[first['device']]}): "
            f"{printable(first['detail'])}{f' (and {others} more refused)' * bool(others)}; "
            f"{again.way_out(phase, self._log, self._config.rounds, self._enough(phase))}"
        )

    def _check_models(self, phase: Phase) -> None:
        if phase.round and not phase.round - len(self._log.void_rounds(phase)):
            raise DataError(again.nothing_made(phase, self._log, self._config.rounds, self._enough(phase)))

    def _unused(self) -> str:
        """What the plan that was given does not change, as the log has gone further, in words."""
        state, plan, rounds = self._state, self._config.plan, self._config.rounds
        if state.stage == "open":
            measures = state.phase.task in MEASURING
            follows = state.phase.round < self._control.last and not (measures and self._enough(state.phase))
            if measures and not follows:
                return again.not_used(state.phase, self._log, plan)
            return again.keeps_its_own(state.phase, state.plan, plan, follows=follows)
        if state.stage != "finished":
            return ""
        return again.nothing_left(state.phase, self._log, rounds, self._enough(state.phase), plan)

    def _enough(self, phase: Phase) -> str:
        return self._chain.enough(phase, self._control)

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
