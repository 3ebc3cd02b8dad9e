"""The aggregator's loop: what it hears, and who is told. What decides is in rounds.py, what is done then in conduct.py.

An update's way through a round: `receiver.Receiver` brings it to its outcome, `_on_ended` tells the state machine,
whose `Close` makes the next model (`chain.Chain.close`), whose `Open` asks the devices again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from aggregator.chain import Chain
from aggregator.conduct import Conductor
from aggregator.control import as_json
from aggregator.desk import HEARS as ENROLS
from aggregator.desk import Desk
from aggregator.figures import FILTERS, ROOT
from aggregator.limits import Limits
from aggregator.log import Log, Outcome
from aggregator.members import Members
from aggregator.monitor import Monitor
from aggregator.phases import Policy
from aggregator.pins import Pins, Speakers
from aggregator.publisher import Publisher
from aggregator.receiver import RETRY_S, Receiver
from aggregator.rounds import has_answer, next_due
from aggregator.states import (
    Answered,
    Offline,
    Online,
    State,
    Tick,
)
from aggregator.steering import Steering
from floe.documents import Card
from floe.errors import KeyFileError, Refused, StoreError
from floe.identity import Identity
from floe.keyring import EnrolledKeyring, Keyring
from floe.messages import Command, Manifest, Reply, Status, Want
from floe.operators import Operators, read_operators
from floe.papers import entrance
from floe.roster import Anchor
from floe.sequence import Sequence
from floe.session import Connected, Disconnected, Published, Received
from floe.settings import Config
from floe.signing import short
from floe.topics import (
    AggregatorStatus,
    DeviceChunk,
    DeviceManifest,
    DeviceStatus,
    DeviceTelemetry,
    DeviceWant,
    OperatorCommand,
    OperatorRoster,
    ReplyTo,
    Topic,
    filter_of,
    parse,
)
from floe.vitals import Sampler
from floe.wire import Wire

HEARS = (AggregatorStatus, DeviceStatus, DeviceManifest, DeviceChunk, DeviceWant, DeviceTelemetry, OperatorCommand)
POLL_S = 0.5


class Aggregator:
    """One lineage of one federation."""

    def __init__(
        self, config: Config, identity: Identity, keyring: Keyring, log: Log, state: Path, anchor: Anchor | None = None
    ) -> None:
        self._federation = config.federation.name
        self._lineage = config.rounds.lineage
        self._log = log
        self._keyring = keyring
        self._policy = Policy(config.rounds, config.plan)
        status = AggregatorStatus(self._federation, self._lineage)
        heard = (*(ENROLS if anchor else ()), *HEARS)
        self.wire = Wire(
            config.mqtt, self._federation, identity, keyring, Sequence(state / "sequence"), status,
            [*(filter_of(kind, federation=self._federation, lineage=self._lineage) for kind in heard), *FILTERS],
            entrance(config, f"lineage.{self._lineage}"),
        )  # fmt: skip
        self._speakers: Speakers = Pins(log, keyring)
        self._desk: Desk | None = None
        operators: Callable[[], Operators] = partial(read_operators, config.path(config.security.operators))
        self._members: Members | None = None
        if anchor is not None and isinstance(keyring, EnrolledKeyring):
            self._members = Members(log, anchor, self._lineage, identity.key, keyring, state)
            self._speakers, operators = self._members, self._members.operators
            self._desk = Desk(config, self.wire, log, keyring, self._members, state, self._on_roster)
        self._chain = Chain(config, log, state, identity, keyring, self._epoch_by_roster())
        self._publisher = Publisher(self.wire, keyring, self._lineage, holds=self._policy.models_held)
        self._receiver = Receiver(
            self.wire, self._chain, self._speakers, log, keyring, self._policy, folder=state / "incoming",
            state=lambda: self._state, ended=self._on_ended,
        )  # fmt: skip
        self._steering = Steering(
            log.db, self._lineage, operators, lambda fault: log.event("error", "operators", fault),
            self._chain.check_model, self._chain.spent,
        )  # fmt: skip
        self._conductor = Conductor(
            self.wire, self._chain, self._publisher, log, keyring, self._policy, self._steering.control,
            self._receiver.close_round,
        )  # fmt: skip
        self._monitor = Monitor(
            log, self._speakers, keyring, self._policy, Sampler(state), state=lambda: self._state,
            uploads=self._receiver.under_way, model=lambda: self._chain.model.sha256 if self._chain.model else None,
            plan=lambda: as_json(self._steering.control().policy(self._policy).plan),
        )  # fmt: skip
        self._limits = Limits()
        self._retry_at = 0.0
        self._repeat_at = 0.0

    @property
    def _state(self) -> State:
        return self._conductor.state

    def run(self, stopped: Callable[[], bool]) -> bool:
        """Serve until told to stop; whether to begin again from disk, in another epoch or with other keys.

        Raises `BrokerError`.
        """
        self._log.all_unknown()
        self._conductor.step(Tick())  # what was recorded before a restart may be enough
        self.wire.session.connect(stopped, lambda text: self._log.event("warning", "broker", text))
        try:
            while not (stopped() or self._outdated):
                self._turn()
        finally:
            self.wire.close()
        return self._outdated

    @property
    def _outdated(self) -> bool:
        renamed = self._members is not None and self._members.changes_our_keys
        return renamed or self._epoch_by_roster() > self._state.phase.epoch

    def _epoch_by_roster(self) -> int:
        return self._members.roster.aggregator(self._lineage).epoch if self._members else 1

    def _turn(self) -> None:
        now = time.monotonic()
        tick = next_due(self._state, self._policy)
        due = min(filter(None, [self._receiver.next_due(), tick if tick and tick > now else None, now + POLL_S]))
        event = self.wire.session.next(due - now)
        try:
            match event:
                case Connected():
                    self._greet()
                case Disconnected(reason):
                    self._log.event("warning", "broker", f"connection lost: {reason}")
                case Published(refusal) if refusal:
                    self._log.event("warning", "broker", f"the broker refused a message of ours: {refusal}")
                case Received():
                    self._receive(event)
            self._receiver.tick(time.monotonic())
            self._log.flush(time.monotonic())
            self._monitor.tick(time.monotonic())
            if self._desk is not None:
                self._desk.tick(time.monotonic())
            if tick and time.monotonic() >= tick:
                self._conductor.step(Tick())
            if time.monotonic() >= self._retry_at:
                self._conductor.perform()
        except (StoreError, sqlite3.Error) as error:
            # Nothing was answered, so nothing is lost: devices announce again, effects are tried again.
            self._retry_at = time.monotonic() + RETRY_S
            self._log.complain(f"{error}; trying again in {RETRY_S:g} s")
        self._publisher.run()

    def _receive(self, received: Received) -> None:
        if received.topic.startswith(ROOT):  # the broker's own, and no topic of Floe
            self._monitor.figures.hear(received.topic, received.payload)
            self.wire.session.ack(received)
            return
        self.wire.received_bytes += len(received.payload)
        device = None
        try:
            topic = parse(received.topic)
            device = getattr(topic, "device", None)
            if not isinstance(topic, DeviceChunk) and not self._hears(topic, device):
                return
            match topic:
                case DeviceChunk():
                    self._receiver.chunk(topic, received.payload)
                case DeviceManifest() if not self._receiver.waits(topic.device):
                    manifest = self.wire.read(received, Manifest, topic.device)
                    self._check_roster(manifest)
                    self._receiver.manifest(topic, manifest, received.payload)
                case DeviceStatus():
                    self._on_status(self.wire.read(received, Status, topic.device))
                case AggregatorStatus():
                    self._on_aggregator(received)
                case DeviceWant():
                    self._on_want(self.wire.read(received, Want, topic.device))
                case DeviceTelemetry():
                    self._monitor.hear(topic, self.wire.read(received, Manifest, topic.device))
                case OperatorCommand():
                    self._on_command(self.wire.read(received, Command, topic.operator))
                case _ if self._desk is not None:
                    self._desk.receive(topic, received)
        except Refused as refusal:
            self._log.refused(device, refusal.reason)
            self._log.event("warning", "refused", f"{device}: {refusal}", device=device, reason=refusal.reason)
        finally:
            self.wire.session.ack(received)

    def _hears(self, topic: Topic, device: str | None) -> bool:
        """Whether a message is looked at: before its signature is verified, for that is what costs."""
        name = device or type(topic).__name__
        if isinstance(topic, OperatorCommand | OperatorRoster) and self._steering.knows(topic.operator):
            name = f"operator/{topic.operator}"  # no name of a device; all others share one place
        known = device is None or self._log.key_of(device) is not None
        if self._limits.admits(name if known else None, time.monotonic()):
            return True
        self._log.refused(device, "flood")
        text = f"{name}: too many messages; some are dropped"
        self._log.event("warning", "flood", text, device=device, reason="flood")
        return False

    def _check_roster(self, manifest: Manifest) -> None:
        if manifest.roster > self._keyring.version and self._log.key_of(manifest.sender) == manifest.key:
            way_out = "was the log restored from an older copy? An operator's `floe federation restored` mends it"
            self._log.event(
                "error", "restored", f"{manifest.sender} knows a newer roster than this aggregator: {way_out}"
            )
            raise Refused("roster", f"made under version {manifest.roster}; known here is {self._keyring.version}")

    def _on_status(self, status: Status) -> None:
        try:
            self._speakers.check_key(status)
        except Refused:
            if self._desk is not None:
                self._desk.spoke(status.sender, again=True)
            raise
        if not self._log.status(status):
            return
        if self._desk is not None and status.state != "offline":
            self._desk.spoke(status.sender, again=status.state == "online")
        if status.state == "offline":
            self._receiver.offline(status.sender)
            self._conductor.step(Offline(status.sender))
        else:
            self._conductor.step(Online(status.sender))
        if status.state == "idle" and status.phase != self._state.phase:
            self._repeat_round()
        if self._state.stage == "waiting":
            self._conductor.tell_waiting()

    def _on_aggregator(self, received: Received) -> None:
        """Our own status, or that of another aggregator of this lineage: devices trust the first they saw."""
        status = self.wire.read(received, Status, self._lineage)
        if status.key == self.wire.identity.key and received.retained and self.wire.outrank(status.seq):
            told = "our own last status is newer than we are: the state folder is an older copy; going on above it"
            self._log.event("warning", "restored", told)
            self._greet()
        if status.key == self.wire.identity.key and not received.retained and status.state == "online" and self._desk:
            self._announce()
        if status.key == self.wire.identity.key or not self._keyring.proves(status):
            return
        other = f"another aggregator (key {short(status.key)}...) speaks for lineage {self._lineage!r}"
        if received.retained:
            raise KeyFileError(f"{other}: restore its state folder here, or choose another --lineage")
        self._log.event("error", "rival", other)

    def _on_want(self, want: Want) -> None:
        self._speakers.check_key(want)
        if want.to != self._lineage:
            raise Refused("not-for-us", f"a want for {want.to!r}")
        self._publisher.serve(want, time.monotonic())

    def _on_command(self, command: Command) -> None:
        verdict = self._steering.handle(command, self._state, self._policy)
        who = f"operator {command.sender!r}: {command.action}"
        if verdict.steered:
            self._log.event("info", "control", f"{who}: {verdict.detail}")
            self._conductor.step(verdict.steered)
        elif not verdict.done:
            self._log.event("warning", "refused", f"{who}: {verdict.reason}: {verdict.detail}")
        fields = self._steering.reply_to(command, verdict, self._state, self._policy, time.monotonic())
        self.wire.send(ReplyTo(self._federation, self._lineage, command.sender), Reply, **fields)

    def _on_roster(self, card: Card | None, renewed: bool) -> None:
        """The roster has changed, by this card or, without one, in whatever way: a device that was put out is not
        waited for, and what is sent with a key that does not count any more ends here.
        """
        self._receiver.check_keys(card.member if card else "")
        for device in self._put_out(card):
            if device in self._state.expected and not has_answer(device, self._state):
                self._conductor.step(Answered(device, accepted=False, late=False))
            self._conductor.step(Offline(device))
        if renewed:
            self._publisher.announce()  # the model's key, under the new group key

    def _put_out(self, card: Card | None) -> list[str]:
        """Those among whom we may wait for that the roster does not have any more."""
        if card is not None:
            return [card.member] if card.state == "revoked" else []
        approved = self._members.approved() if self._members else []
        return sorted((self._state.expected | self._state.online) - {*approved})

    def _on_ended(self, ended: Outcome) -> None:
        if ended.outcome in ("accepted", "rejected"):
            self._conductor.step(
                Answered(ended.device, ended.outcome == "accepted", late=ended.phase != self._state.phase)
            )
        what = f"{ended.device}: {ended.phase.task} {ended.phase.round} {ended.outcome}"
        # One initial model is enough: that others come too late is no fault.
        level = "info" if ended.outcome == "accepted" or ended.phase.task == "init" else "warning"
        text = f"{what}: {ended.reason}: {ended.detail}" if ended.reason else what
        self._log.event(level, ended.outcome, text, device=ended.device, reason=ended.reason or None)

    def _greet(self) -> None:
        """Connected. With enrolment the rest waits for the echo of our status: what is retained of us comes before it,
        and a newer head must not be overwritten by that of a restored log.
        """
        self.wire.status("online")
        if self._desk is None:
            self._announce()

    def _announce(self) -> None:
        """What is retained of ours, for a broker that may have lost it."""
        if self._desk is not None:
            self._desk.greet_broker()
        self._publisher.announce()
        self._conductor.repeat()

    def _repeat_round(self) -> None:
        """A device that waits does not know what is asked for now: the broker lost it."""
        if time.monotonic() >= self._repeat_at:
            self._repeat_at = time.monotonic() + RETRY_S
            if self._desk is not None:
                self._desk.greet()
            self._conductor.repeat()
