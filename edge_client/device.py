"""The device's loop: a round comes, its base is fetched, the work is done, the result is announced until answered.

What to do next is said by `orders.decide`; this carries it out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from edge_client.data.features import Features
from edge_client.download import Download
from edge_client.enrolled import LISTENS_TO as ROSTER
from edge_client.enrolled import Enrolled
from edge_client.memory import Memory
from edge_client.orders import Action, decide, follow
from edge_client.outbox import Outbox
from edge_client.telemetry import Journal, Reporter
from edge_client.work import Done, Failed, Worker
from floe.access import Access
from floe.errors import AccessError, KeyFileError, Refused, StoreError
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import Answer, M, Manifest, Phase, Round, Status, Want
from floe.pump import Pump
from floe.report import Report
from floe.selection import takes_part
from floe.sequence import Sequence
from floe.service import log
from floe.session import UNAUTHORIZED, Connected, Disconnected, Posted, Published, Received
from floe.settings import Config
from floe.topics import (
    AggregatorStatus,
    AnswerTo,
    CurrentRound,
    DeviceChunk,
    DeviceManifest,
    DeviceStatus,
    DeviceWant,
    ModelChunk,
    ModelChunkTo,
    ModelManifest,
    ModelManifestTo,
    Topic,
    WantTo,
    filter_of,
    parse,
)
from floe.transfer import from_ranges
from floe.vitals import Sampler
from floe.wire import Wire

POLL_S = 0.5
RETRY_S = 10.0
LISTENS_TO = (
    *(AggregatorStatus, WantTo, AnswerTo, ModelManifestTo, ModelChunkTo),
    *(ModelManifest, ModelChunk, CurrentRound, DeviceStatus),
)


class Device:
    """One device of one federation, following one lineage."""

    def __init__(
        self, config: Config, features: Features, identity: Identity, keyring: Keyring, state: Path,
        enrolled: Enrolled | None = None, access: Access | None = None, journal: Journal | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._id = config.device.id
        self._lineage = config.rounds.lineage
        self._federation = federation = config.federation.name
        self._keyring = keyring
        self._enrolled = enrolled
        self._memory = Memory(state)
        if enrolled is not None:
            enrolled.expect(self._memory.roster)
            self._remember_roster(enrolled)
        self._outbox = Outbox(state / "outbox")
        self._download = Download(state, keyring, self._lineage, config.security.max_transfer_mb * 1_000_000)
        me = {"federation": federation, "lineage": self._lineage, "device": self._id}
        self.wire = Wire(
            config.mqtt,
            federation,
            identity,
            keyring,
            Sequence(state / "sequence"),
            DeviceStatus(federation, self._id),
            [filter_of(kind, **me) for kind in (*LISTENS_TO, *(ROSTER if enrolled else ()))],
            access,
        )
        self._worker = Worker(config, features, keyring, state, self.wire.session.post)
        self._pump = Pump(self.wire)
        journal = journal or Journal(config.device.journal)
        self._reporter = Reporter(config.device, keyring, journal, Sampler(state), time.monotonic())
        self._newest: Round | None = None
        self._order: Round | None = None  # the one that is followed
        self._retry_at = 0.0
        self._aggregator_seq = -1
        self._speak_at = 0.0

    def run(self, stopped: Callable[[], bool]) -> bool:
        """Serve until told to stop; whether to begin again, with other keys.

        Raises `BrokerError`, and `KeyFileError` if another device has this id, or this one was revoked.
        """
        self.wire.session.connect(stopped, log)
        try:
            while not (stopped() or self._changed_keys):
                self._turn()
        finally:
            self._worker.cancel()
            self.wire.close()
            self._worker.join(1.0)
        return self._changed_keys

    @property
    def _changed_keys(self) -> bool:
        return self._enrolled is not None and self._enrolled.changed_keys

    @property
    def _takes_part(self) -> bool:
        return self._enrolled is None or self._enrolled.is_approved

    def _turn(self) -> None:
        event = self.wire.session.next(POLL_S)
        try:
            match event:
                case Connected():
                    self._greet()
                case Disconnected(reason):
                    log(f"warning: connection lost: {reason}; trying again")
                case Published(refusal) if refusal:
                    self._check_rights(refusal)
                    log(f"warning: the broker refused a message: {refusal}; check its ACL and limits")
                case Received():
                    self._receive(event)
                case Posted(Done() | Failed() as result):
                    self._finished(result)
            self._go_on()
        except StoreError as error:
            self._retry_at = time.monotonic() + RETRY_S
            log(f"error: {error}; trying again in {RETRY_S:g} s")
        self._pump.run()

    def _check_rights(self, refusal: str) -> None:
        if self._enrolled is not None and self._config.mqtt.login != "shared" and refusal == UNAUTHORIZED:
            raise AccessError("login", f"the broker lets {self._id!r} say nothing: it knows no such device, or not yet")

    def _greet(self) -> None:
        log(f"connected to {self._config.mqtt.host}:{self._config.mqtt.port}")
        self._outbox.hurry()
        self._download.hurry()
        if self._enrolled is not None:
            self._enrolled.connected()
        self._say_present()

    def _receive(self, received: Received) -> None:
        self.wire.received_bytes += len(received.payload)
        try:
            topic = parse(received.topic)
            match topic:
                case ModelChunk() | ModelChunkTo():
                    if self._download.add(topic.transfer, topic.index, received.payload, time.monotonic()):
                        self._memory.save()
                        log(f"global model {self._download.sha256[:12]} received")
                case CurrentRound():
                    self._on_round(received)
                case ModelManifest() | ModelManifestTo():
                    self._on_model(received)
                case AggregatorStatus():
                    self._on_aggregator(received)
                case DeviceStatus():
                    self._on_own_status(received)
                case WantTo():
                    self._on_want(received)
                case AnswerTo():
                    self._on_answer(received)
                case _ if self._enrolled is not None:
                    self._on_roster(self._enrolled, topic, received)
        except Refused as refusal:
            log(f"warning: refused {received.topic}: {refusal}")
        finally:
            self.wire.session.ack(received)

    def _read(self, received: Received, kind: type[M]) -> M:
        message = self.wire.read(received, kind, self._lineage)
        if self._enrolled is None:
            self._memory.check_key(message, self._keyring)
        else:
            self._enrolled.membership.check_key(message)
        return message

    def _on_roster(self, enrolled: Enrolled, topic: Topic, received: Received) -> None:
        let_in = enrolled.receive(self.wire, topic, received)
        self._remember_roster(enrolled)
        if let_in:
            log(f"enrolled: {self._id!r} is in the roster, version {self._keyring.version}")
            self._outbox.hurry()
            self._download.hurry()
            self._say_present()

    def _remember_roster(self, enrolled: Enrolled) -> None:
        self._memory.follow(enrolled.membership.epoch)
        self._memory.saw_roster(self._keyring.version)

    def _on_round(self, received: Received) -> None:
        order = self._read(received, Round)
        if order.phase.lineage != self._lineage:
            raise Refused("not-for-us", f"a round of {order.phase.lineage!r}")
        self._check_roster(order.phase.epoch, order.roster)
        if not self._memory.newer("round", order.seq):
            raise Refused("round", "older than a round document that was seen before")
        if self._newest is None or order.phase != self._newest.phase or order.state != self._newest.state:
            log(f"round {order.phase.round}: {order.phase.task}, {order.state}")
        self._newest = order

    def _check_roster(self, epoch: int, version: int) -> None:
        """A chain of an epoch that is over is none; what was made under a version that is not here yet comes again."""
        if self._enrolled is not None and epoch < self._enrolled.membership.epoch:
            raise Refused("roster", f"of epoch {epoch}; the roster says {self._enrolled.membership.epoch}")
        if version > self._keyring.version:
            raise Refused("roster", f"made under version {version} of the roster; here is {self._keyring.version}")

    def _on_model(self, received: Received) -> None:
        manifest = self._read(received, Manifest)
        self._check_roster(manifest.core.epoch, manifest.roster)
        if not self._memory.newer("model", manifest.seq):
            raise Refused("round", "older than a model's manifest that was seen before")
        self._download.announce(manifest, retained=received.retained, now=time.monotonic(), keep=self._late_base())

    def _on_aggregator(self, received: Received) -> None:
        """An aggregator that comes back has forgotten who was about to send what, and maybe who is there.

        Each status counts once: one that is played again must not make the whole fleet speak.
        """
        status = self._read(received, Status)
        if status.seq <= self._aggregator_seq:
            return
        self._aggregator_seq = status.seq
        if status.state == "online" and not received.retained:
            self._outbox.hurry()
            self._download.hurry()
            if self._enrolled is not None:
                self._enrolled.connected()
            self._say_present()

    def _on_own_status(self, received: Received) -> None:
        """What was known of this name before we came: our own last status, or that of another device."""
        if not received.retained:
            return  # the echo of each of our own: not worth a verification
        status = self.wire.read(received, Status, self._id)
        if status.key == self.wire.identity.key:
            if self.wire.outrank(status.seq):
                self._say_present()
        elif self._keyring.proves(status):
            taken = f"another device is known under the name {self._id!r}"
            if status.state != "offline":
                raise KeyFileError(f"{taken}, and online: choose another --id")
            log(f"warning: {taken}, last seen offline; if it is not gone for good, choose another --id")

    def _on_want(self, received: Received) -> None:
        want = self._read(received, Want)
        parcel = self._outbox.get(want.transfer)
        if want.to != self._id or parcel is None:
            return  # answered meanwhile
        phase, name = parcel.core.phase, parcel.name
        indices = list(from_ranges(want.ranges, len(parcel.core.chunks)))
        self._outbox.heard(name, indices, time.monotonic())
        self._pump.add(
            name,
            parcel,
            indices,
            lambda index: DeviceChunk(self._federation, self._id, phase.lineage, phase.round, name, index),
        )

    def _on_answer(self, received: Received) -> None:
        answer = self._read(received, Answer)
        parcel = self._outbox.get(answer.transfer)
        if (answer.to, answer.to_key) != (self._id, self.wire.identity.key) or parcel is None:
            return  # answered before, or what is answered is another's copy of our manifest
        what = f"{answer.phase.task} {answer.phase.round} {answer.outcome}"
        log(f"{what}: {answer.reason}: {answer.detail}" if answer.reason else what)
        if self._enrolled is not None and self._enrolled.doubts(answer.reason):
            return  # the update stays, and is announced again
        if answer.reason == "unknown-key":
            raise KeyFileError(f"another device is known under the name {self._id!r}: choose another --id")
        self._memory.remember_answer(parcel.core.phase)
        self._pump.drop(answer.transfer)
        self._outbox.forget(answer.transfer)
        self._outbox.hurry()  # the next may have had to wait for this one

    def _finished(self, result: Done | Failed) -> None:
        if isinstance(result, Failed):
            raise StoreError(f"{result.phase.task} {result.phase.round}: {result.reason}")
        self._outbox.put(result.parcel)
        log(f"{result.phase.task} {result.phase.round} done: {_words(result.report)}")
        self._say("idle")

    def _go_on(self) -> None:
        if self._enrolled is not None and self.wire.session.connected:
            self._enrolled.go_on(self.wire)
        if not self._takes_part:
            return
        now = time.monotonic()
        order = self._order = follow(self._newest, self._order, under_way=self._under_way(now))
        action = self._decide(order)
        if action == "work":
            self._memory.save()
        match action:
            case "cancel":
                self._worker.cancel()
            case "fetch" if order is not None and (fault := self._download.fault(order.base)):
                if order.state == "open" and now >= self._retry_at:
                    self._worker.start(order, None, fault=fault)  # an answer, so that the round need not wait for us
            case "fetch" if order is not None and order.base is not None:
                if self.wire.session.connected and (ranges := self._download.wanted(order.base, now)) is not None:
                    topic = DeviceWant(self._federation, self._id, self._lineage)
                    self.wire.send(topic, Want, to=self._lineage, transfer=order.base.transfer, ranges=ranges)
            case "work" if order is not None and now >= self._retry_at:
                self._worker.start(order, self._download.open() if order.base else None)
                self._say("training")
        if self.wire.session.connected:
            if now >= self._speak_at:
                self._say("training" if self._worker.busy else "idle")
            if self._enrolled is None or self._enrolled.may_announce:
                self._announce(now)

    def _announce(self, now: float) -> None:
        """What waits in the outbox; then, if it is time, how we are."""
        for parcel in self._outbox.due(now):
            phase = parcel.core.phase
            topic_of = DeviceManifest(self._federation, self._id, phase.lineage, phase.round)
            envelope = parcel.envelope(self._keyring, phase.lineage)
            self.wire.send(topic_of, Manifest, core=parcel.core, envelope=envelope, roster=self._keyring.version)
        if self._newest is not None and self._reporter.is_due(now):
            retries, model = self._outbox.retries, self._download.sha256
            self._reporter.send(self.wire, self._newest.phase, now, retries=retries, model_sha256=model)

    def _under_way(self, now: float) -> bool:
        """Whether what the followed order asks for has been begun, and not been done."""
        order = self._order
        if order is None or order.state != "open" or not self._selected(order) or self._done(order.phase):
            return False
        if self._worker.busy:
            return self._worker.phase == order.phase
        return order.base is not None and self._download.has_begun(order.base, now)

    def _late_base(self) -> str:
        """The transfer that is to be received to its end although a newer model has been announced."""
        order = self._order
        late = order is not None and order.staleness and self._under_way(time.monotonic())
        return order.base.transfer if late and order and order.base else ""

    def _done(self, phase: Phase) -> bool:
        # A result is in the outbox before the loop is told of it: what else it is told first must not begin it anew.
        return self._outbox.holds(phase) or self._memory.answered(phase) or self._worker.done == phase

    def _decide(self, order: Round | None) -> Action:
        working_on = self._worker.phase if self._worker.busy else None
        if order is None:
            return decide(None, selected=False, done=False, base="", working_on=working_on)
        return decide(
            order, selected=self._selected(order), done=self._done(order.phase), base=self._download.sha256,
            working_on=working_on,
        )  # fmt: skip

    def _selected(self, order: Round) -> bool:
        return takes_part(self._id, order.phase, order.plan.seed, order.bar, order.devices)

    def _say_present(self) -> None:
        if not self._takes_part:
            log(f"waiting until an operator lets {self._id!r} in: `floe devices approve {self._id}`")
            return
        self._say("training" if self._worker.busy else "online")

    def _say(self, state: str) -> None:
        # Said again after a while: a broker may lose this, or the round that we should know of by now.
        self._speak_at = time.monotonic() + self._config.mqtt.keepalive_s * random.uniform(1.5, 2.5)  # noqa: S311 (jitter)
        self.wire.status(state, self._order.phase if self._order else None)


def _words(report: Report) -> str:
    if report.failure:
        return report.failure
    parts = [f"{report.samples} rows"] if report.samples else []
    for name, metrics in (("before", report.before), ("after", report.after)):
        if metrics is not None:
            auc = f", AUC {metrics.roc_auc:.4f}" if metrics.roc_auc is not None else ""
            parts.append(f"{name}: loss {metrics.loss:.4f}, accuracy {metrics.accuracy:.4f}{auc}")
    return "; ".join(parts) or "sent"
