"""The aggregator's loop: events in, `rounds.step`, effects out. What decides is in rounds.py, intake.py, results.py.

One update's way: `_on_manifest` checks and reserves, `_on_chunk` writes, `_complete` opens, checks, spools and
records, `_answer` tells the device; when all have their answer, `_close` makes the next model and `_open` asks again.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from aggregator.chain import Chain
from aggregator.intake import check_manifest, check_report, check_weights, phase_of
from aggregator.log import Log, Outcome
from aggregator.publisher import Publisher
from aggregator.rounds import (
    Answered,
    Close,
    Closed,
    Effect,
    Event,
    Extend,
    Finish,
    Offline,
    Online,
    Open,
    Policy,
    State,
    Tick,
    quorum_of,
    step,
)
from aggregator.uploads import Upload, Uploads
from floe.config import Config
from floe.errors import Refused, StoreError
from floe.identity import Identity
from floe.keyring import Keyring, open_meta
from floe.messages import Answer, Manifest, Round, Status, Want
from floe.parcel import Incoming
from floe.report import Report
from floe.sequence import Sequence
from floe.session import Connected, Disconnected, Received
from floe.topics import (
    AggregatorStatus,
    AnswerTo,
    CurrentRound,
    DeviceChunk,
    DeviceManifest,
    DeviceStatus,
    DeviceWant,
    WantTo,
    filter_of,
    parse,
)
from floe.transfer import Ranges, name_of
from floe.wire import Wire

RETRY_S = 5.0  # pause before a write that the disk refused is tried again
POLL_S = 0.5


class Aggregator:
    """One lineage of one federation."""

    def __init__(self, config: Config, identity: Identity, keyring: Keyring, log: Log, state: Path) -> None:
        self._federation = config.federation.name
        self._lineage = config.rounds.lineage
        self._keyring = keyring
        self._log = log
        self._policy = Policy(config.rounds, config.plan)
        self._incoming = state / "incoming"
        self.wire = Wire(
            config.mqtt,
            self._federation,
            identity,
            Sequence(state / "sequence"),
            AggregatorStatus(self._federation, self._lineage),
            [
                filter_of(DeviceStatus, federation=self._federation),
                filter_of(DeviceManifest, federation=self._federation, lineage=self._lineage),
                filter_of(DeviceChunk, federation=self._federation, lineage=self._lineage),
                filter_of(DeviceWant, federation=self._federation, lineage=self._lineage),
            ],
        )
        self._uploads = Uploads(config.rounds.uploads, self._send_want)
        self._publisher = Publisher(self.wire, keyring, self._lineage)
        self._chain = Chain(config, log, state, identity, keyring)
        self._state: State = self._chain.restore(self._policy, time.monotonic())
        self._effects: deque[Effect] = deque([Open()] if self._state.stage == "open" else [])
        self._retry_at = 0.0
        self._counted = (0, 0)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Serve until told to stop. Raises `BrokerError`."""
        self.wire.session.connect(stopped, lambda text: self._log.event("warning", "broker", text))
        try:
            while not stopped():
                self._turn()
        finally:
            self.wire.close()

    def _turn(self) -> None:
        now = time.monotonic()
        due = min(filter(None, [self._uploads.next_due(), self._state.deadline or None, now + POLL_S]))
        event = self.wire.session.next(due - now)
        try:
            if isinstance(event, Connected):
                self._greet()
            elif isinstance(event, Disconnected):
                self._log.event("warning", "broker", f"connection lost: {event.reason}")
            elif isinstance(event, Received):
                self._receive(event)
            now = time.monotonic()
            self._uploads.tick(now)
            self._step(Tick())
            self._perform(now)
        except (StoreError, sqlite3.Error) as error:
            # Nothing was answered, so nothing is lost: devices announce again, effects are tried again.
            self._retry_at = time.monotonic() + RETRY_S
            print(f"floe: error: {error}; trying again in {RETRY_S:g} s", flush=True)
        self._publisher.run()

    def _receive(self, received: Received) -> None:
        self.wire.received_bytes += len(received.payload)
        device = None
        try:
            topic = parse(received.topic)
            device = getattr(topic, "device", None)
            match topic:
                case DeviceChunk():
                    self._on_chunk(topic, received.payload)
                case DeviceManifest():
                    self._on_manifest(topic, received)
                case DeviceStatus():
                    self._on_status(topic, received)
                case DeviceWant():
                    self._on_want(topic, received)
        except Refused as refusal:
            self._log.event("warning", "refused", f"{device}: {refusal}", device=device, reason=refusal.reason)
        finally:
            self.wire.session.ack(received)

    def _on_status(self, topic: DeviceStatus, received: Received) -> None:
        status = self.wire.read(received, Status, topic.device)
        self._check_key(status.sender, status.key)
        if self._log.status(status):
            self._step(Offline(status.sender) if status.state == "offline" else Online(status.sender))

    def _on_want(self, topic: DeviceWant, received: Received) -> None:
        want = self.wire.read(received, Want, topic.device)
        self._check_key(want.sender, want.key)
        if want.to != self._lineage:
            raise Refused("not-for-us", f"a want for {want.to!r}")
        self._publisher.serve(want)

    def _on_manifest(self, topic: DeviceManifest, received: Received) -> None:
        manifest = self.wire.read(received, Manifest, topic.device)
        device, name, phase = manifest.sender, name_of(manifest.core), phase_of(manifest.core)
        if ended := self._log.outcome(name):
            self._answer(ended)
            return
        current = self._uploads.of(device)
        if current is not None and current.transfer == name:
            self._uploads.repeat(device, time.monotonic())
            return
        try:
            self._check_key(device, manifest.key)
            report = self._admit(manifest, topic)
        except Refused as refusal:
            outcome = "late" if refusal.reason == "round" and phase.epoch == self._state.phase.epoch else "rejected"
            # Only the device whose key is pinned may have an outcome: another cannot end what is not its own.
            record = refusal.reason not in ("unknown-key", "full")
            self._end(Outcome(name, device, phase, outcome, refusal.reason, refusal.detail), manifest, record=record)
            return
        if current is not None:
            self._supersede(current)
        incoming = Incoming(manifest.core, self._keyring.open(manifest.core, manifest.envelope), self._part(device))
        incoming.resume()
        upload = Upload(device, name, phase, report, manifest.envelope, incoming, len(received.payload))
        if incoming.assembly.complete:
            self._complete(upload)
        else:
            self._uploads.offer(upload, time.monotonic())

    def _admit(self, manifest: Manifest, topic: DeviceManifest) -> Report:
        core, phase = manifest.core, phase_of(manifest.core)
        check_manifest(manifest, topic, self._chain.expectation(self._state.phase))
        if self._state.stage != "open":
            raise Refused("round", f"{phase.task} {phase.round} is not open")
        if manifest.sender in self._state.accepted | self._state.refused:
            raise Refused("duplicate", f"an update of {phase.task} {phase.round} has its answer already")
        if manifest.sender not in self._state.expected and not self._chain.selects(manifest.sender, self._state):
            raise Refused("round", f"not selected for {phase.task} {phase.round}")
        report = open_meta(self._keyring.open(core, manifest.envelope), core, Report)
        check_report(report, core, self._policy.plan)
        return report

    def _on_chunk(self, topic: DeviceChunk, sealed: bytes) -> None:
        upload = self._uploads.of(topic.device)
        if upload is None or upload.transfer != topic.transfer:
            return  # of an update that has its answer: sent twice, or late
        if self._uploads.add(upload, topic.index, sealed, time.monotonic()):
            self._complete(upload)

    def _complete(self, upload: Upload) -> None:
        sha256, outcome, refusal = None, "accepted", Refused("", "")
        core = upload.incoming.core
        try:
            if core.size:
                path = self._chain.spool(upload.phase) / f"{upload.device}.safetensors"
                sha256 = upload.incoming.open_to(path)
                try:
                    self._chain.accept_schema(check_weights(path, core, self._chain.expectation(upload.phase)))
                except Refused:
                    path.unlink()
                    raise
        except Refused as error:
            sha256, outcome, refusal = None, "rejected", error
        ended = Outcome(upload.transfer, upload.device, upload.phase, outcome, refusal.reason, refusal.detail)
        self._log.update(ended, upload.report, bytes_=upload.received_bytes, sha256=sha256, suite=core.suite)
        self._uploads.remove(upload.device, time.monotonic())
        self._tell(ended)

    def _supersede(self, upload: Upload) -> None:
        ended = Outcome(upload.transfer, upload.device, upload.phase, "superseded", "newer", "a later update came")
        self._log.update(
            ended, upload.report, bytes_=upload.received_bytes, sha256=None, suite=upload.incoming.core.suite
        )
        self._uploads.remove(upload.device, time.monotonic())
        self._answer(ended)

    def _end(self, ended: Outcome, manifest: Manifest, *, record: bool) -> None:
        """An update that is over before a chunk of it was asked for."""
        if record:
            self._log.update(ended, None, bytes_=0, sha256=None, suite=manifest.core.suite)
            self._tell(ended)
        else:
            self._log.event(
                "warning", "refused", f"{ended.device}: {ended.detail}", device=ended.device, reason=ended.reason
            )
            self._answer(ended)

    def _tell(self, ended: Outcome) -> None:
        self._answer(ended)
        what = f"{ended.device}: {ended.phase.task} {ended.phase.round} {ended.outcome}"
        if ended.outcome == "accepted":
            self._log.event("info", "accepted", what, device=ended.device)
        else:
            self._log.event("warning", ended.outcome, f"{what}: {ended.reason}: {ended.detail}", device=ended.device)
        final = ended.reason not in ("duplicate", "round")
        if ended.phase == self._state.phase and final:
            self._step(Answered(ended.device, ended.outcome == "accepted"))

    def _answer(self, ended: Outcome) -> None:
        self.wire.send(
            AnswerTo(self._federation, self._lineage, ended.device),
            Answer,
            to=ended.device,
            transfer=ended.transfer,
            phase=ended.phase,
            outcome=ended.outcome,
            reason=ended.reason,
            detail=ended.detail[:500],
        )

    def _step(self, event: Event) -> None:
        following = step(self._state, event, self._policy, time.monotonic(), has_model=self._chain.model is not None)
        self._state = following.state
        self._effects.extend(following.effects)

    def _perform(self, now: float) -> None:
        while self._effects and now >= self._retry_at:
            match self._effects[0]:
                case Open():
                    self._open()
                case Close():
                    self._close()
                case Extend(reason):
                    phase = self._state.phase
                    self._log.event("warning", "extended", f"{phase.task} {phase.round} goes on: {reason}")
                    self._publish_round()
                case Finish():
                    self._log.event("info", "finished", f"all {self._policy.rounds.count} rounds are closed")
                    self._publish_round()
            self._effects.popleft()

    def _open(self) -> None:
        state = self._state
        self._chain.open(state)
        self._counted = (self.wire.received_bytes, self.wire.sent_bytes)
        devices = ", ".join(sorted(state.expected))
        self._log.event("info", "opened", f"{state.phase.task} {state.phase.round} with {devices}")
        self._publish_model()
        self._publish_round()

    def _close(self) -> None:
        phase = self._state.phase
        up, down = self.wire.received_bytes - self._counted[0], self.wire.sent_bytes - self._counted[1]
        for upload in self._uploads.all():
            late = Outcome(upload.transfer, upload.device, upload.phase, "late", "closed", "the round closed before")
            self._log.update(
                late, upload.report, bytes_=upload.received_bytes, sha256=None, suite=upload.incoming.core.suite
            )
            self._uploads.remove(upload.device, time.monotonic())
            self._answer(late)
        self._chain.close(phase, up=up, down=down)
        self._log.event("info", "closed", f"{phase.task} {phase.round} closed with {len(self._state.accepted)} updates")
        self._step(Closed())

    def _greet(self) -> None:
        self.wire.status("online")
        self._publisher.announce()
        if self._state.stage in ("open", "finished"):
            self._publish_round()

    def _publish_model(self) -> None:
        if (parcel := self._chain.parcel()) is not None:
            self._publisher.publish(parcel)

    def _publish_round(self) -> None:
        state = self._state
        if state.stage == "finished":
            self._publish_model()
        whole = state.phase.task != "train"
        self.wire.send(
            CurrentRound(self._federation, self._lineage),
            Round,
            retain=True,
            phase=state.phase,
            state="finished" if state.stage == "finished" else "open",
            base=self._chain.base(),
            plan=self._policy.plan,
            devices=self._policy.rounds.members,
            fraction=1.0 if whole else self._policy.rounds.fraction,
            draw=state.draw,
            quorum=max(quorum_of(state, self._policy), 1),
            seconds_left=max(state.deadline - time.monotonic(), 0.0),
        )

    def _send_want(self, device: str, transfer: str, ranges: Ranges) -> None:
        topic = WantTo(self._federation, self._lineage, device)
        self.wire.send(topic, Want, to=device, transfer=transfer, ranges=ranges)

    def _check_key(self, device: str, key: str) -> None:
        if self._log.pin(device, key) != key:
            raise Refused("unknown-key", f"another key was seen first under the name {device!r}")

    def _part(self, device: str) -> Path:
        return self._incoming / f"{device}.part"
