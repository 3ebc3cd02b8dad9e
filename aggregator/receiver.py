"""Updates on their way from manifest to outcome: checked, received, opened, spooled, recorded, answered.

The order of a good one: `manifest` checks it and puts it in line, `_begin` makes room when its turn has come, `chunk`
opens and writes, `_complete` checks the weights, `_end` records the outcome and only then answers the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from aggregator.chain import Chain
from aggregator.intake import check_manifest, check_report, check_weights, decode, is_coded
from aggregator.log import Log, Outcome
from aggregator.phases import Policy
from aggregator.pins import Speakers
from aggregator.rounds import has_answer, staleness_of
from aggregator.states import State
from aggregator.uploads import Upload, Uploads
from floe.errors import Refused
from floe.files import storing, sync
from floe.keyring import Keyring, open_meta
from floe.messages import Answer, Core, Manifest, Phase, Want
from floe.parcel import Incoming
from floe.report import Report
from floe.seal import Sealer
from floe.signing import verify
from floe.topics import AnswerTo, DeviceChunk, DeviceManifest, WantTo
from floe.transfer import Ranges, name_of
from floe.wire import Wire

RECORDED = 8  # rows in `updates` for what one device sends in vain while a phase is open; the rest is counted
RETRY_S = 5.0  # pause before a write that the disk refused is tried again


class Receiver:
    """The aggregator's side of every update.

    `state` gives the present state of the rounds; `ended` is called once for each outcome, after it is on disk.
    """

    def __init__(
        self, wire: Wire, chain: Chain, speakers: Speakers, log: Log, keyring: Keyring, policy: Policy, *, folder: Path,
        state: Callable[[], State], ended: Callable[[Outcome], None],
    ) -> None:  # fmt: skip
        self._wire = wire
        self._chain = chain
        self._speakers = speakers
        self._log = log
        self._keyring = keyring
        self._policy = policy
        self._folder = folder
        self._state = state
        self._ended = ended
        self._recorded: dict[str, int] = {}
        self._uploads = Uploads(policy.rounds.uploads, self._begin, self._send_want)

    def manifest(self, topic: DeviceManifest, manifest: Manifest, payload: bytes) -> None:
        """An update is announced, for the first time or again. Its signature has been verified."""
        core, device, name = manifest.core, manifest.sender, name_of(manifest.core)
        if core.lineage != topic.lineage:
            # Not answered: an answer would go to the topic of a lineage that is not ours.
            raise Refused("malformed", f"an update for {core.lineage!r} on the topic of {topic.lineage!r}")
        self._check_key(manifest)
        if known := self._log.outcome(name):
            self._answer(known, manifest.key)
        elif self._uploads.transfer_of(device) == name:
            self._uploads.repeat(device, time.monotonic())
        else:
            self._announced(topic, manifest, payload)

    def waits(self, device: str) -> bool:
        """Whether a device is in line already: that it announces again says nothing new, and a thousand do."""
        return self._uploads.waits(device)

    def chunk(self, topic: DeviceChunk, sealed: bytes) -> None:
        """One chunk; of an update that has its answer already (sent twice, or late) it is passed over."""
        upload = self._uploads.get(topic.device)
        if upload is None or upload.transfer != topic.transfer:
            self._log.refused(topic.device, "unasked")
            return
        try:
            complete = self._uploads.add(upload, topic.index, sealed, time.monotonic())
        except Refused as refusal:
            if refusal.reason != "unsealing":
                raise
            self._conclude(upload, "rejected", refusal.reason, refusal.detail)  # as its maker signed it
            return
        if complete:
            self._complete(upload)

    def close_round(self, closing: Phase, following: Phase | None) -> None:
        """What is still on its way when a round closes is late, unless a following round still takes it."""
        self._recorded.clear()
        if self._policy.max_staleness and (closing.task, following and following.task) == ("train", "train"):
            return
        for device in self._uploads.devices():
            self._abandon(device, "late", "closed", "the round closed before the transfer was complete")

    def check_keys(self, device: str = "") -> None:
        """The roster has changed: what one device, or any, is sending or waits to send with a key that does not speak
        for it any more ends here.
        """
        for name in [device] if device else self._uploads.devices():
            if self._uploads.transfer_of(name) is None:
                continue
            if upload := self._uploads.get(name) or self._begin(name):
                self._speaks(upload)
            else:
                self._forget(name)

    def offline(self, device: str) -> None:
        """What a device was sending is not waited for while others could send."""
        self._uploads.park(device, time.monotonic())

    def tick(self, now: float) -> None:
        """Ask again for what is missing; finish what the disk refused before. Raises `StoreError`."""
        for upload in self._uploads.complete(now):
            upload.due = now + RETRY_S  # should it fail again
            self._complete(upload)
        self._uploads.tick(now)

    def under_way(self) -> list[Upload]:
        """The updates that are being received."""
        return self._uploads.active()

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        return self._uploads.next_due()

    def _check_key(self, manifest: Manifest) -> None:
        try:
            self._speakers.check_key(manifest)
        except Refused as refusal:
            if refusal.reason != "roster":  # which passes: the device keeps its update, and announces it again
                phase, name = manifest.core.phase, name_of(manifest.core)
                ended = Outcome(name, manifest.sender, phase, "rejected", refusal.reason, refusal.detail)
                self._answer(ended, manifest.key)
            raise

    def _speaks(self, upload: Upload) -> bool:
        """Whether the key that has announced an update still speaks for its device; if not, the update ends here.

        Where the device has another key now, without an outcome: it may announce the same under that one.
        """
        try:
            self._speakers.check_key(upload.manifest)
        except Refused as refusal:
            if refusal.reason == "unknown-key":
                self._log.refused(upload.device, refusal.reason)
                self._forget(upload.device)
            elif refusal.reason != "roster":  # which passes
                self._conclude(upload, "rejected", refusal.reason, refusal.detail)
            return False
        return True

    def _announced(self, topic: DeviceManifest, manifest: Manifest, payload: bytes) -> None:
        core, device = manifest.core, manifest.sender
        state = self._state()
        if self._must_wait(core.phase, device, state):
            return  # not answered: it is announced again
        try:
            self._admit(manifest, topic, state)
        except Refused as refusal:
            if refusal.reason == "roster":
                raise  # not answered: it is announced again, under the newer one
            late = refusal.reason == "round" and core.epoch == state.phase.epoch
            outcome = "late" if late else "rejected"
            ended = Outcome(name_of(core), device, core.phase, outcome, refusal.reason, refusal.detail)
            self._end(ended, None, core, manifest.key, received_bytes=0, sha256=None)
            return
        if self._uploads.transfer_of(device) is not None:
            self._abandon(device, "superseded", "newer", "a later update of this device came")
        if core.size:
            with storing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._announcement(device).write_bytes(payload)
            self._uploads.offer(device, name_of(core), core.phase, time.monotonic())
        else:
            self._complete(self._upload(manifest))

    def _must_wait(self, phase: Phase, device: str, state: State) -> bool:
        """Whether an update will be taken, but not now: its round is closing, or another of the device comes first."""
        if not self._policy.max_staleness:
            return False
        coming = self._uploads.phase_of(device)
        other = coming not in (None, phase) and self._takes(coming, state) is not None
        comes = other and not self._uploads.stalled(device)
        return comes or (state.stage == "closing" and phase == state.phase)

    def _takes(self, phase: Phase | None, state: State) -> int | None:
        return None if phase is None else staleness_of(phase, state, self._policy)

    def _admit(self, manifest: Manifest, topic: DeviceManifest, state: State) -> None:
        core, device = manifest.core, manifest.sender
        behind = self._takes(core.phase, state)
        phase = state.phase if behind is None else core.phase
        expected = self._chain.expectation(phase)
        check_manifest(manifest, topic, expected)
        if behind is None:
            raise Refused("round", f"{phase.task} {phase.round} is not open")
        if has_answer(device, state) if behind == 0 else self._log.has_ended(device, phase):
            raise Refused("duplicate", f"an update of {phase.task} {phase.round} has its answer already")
        if not (behind == 0 and device in state.expected) and not self._chain.selects(device, phase):
            raise Refused("round", f"not selected for {phase.task} {phase.round}")
        report = open_meta(self._open(manifest), core, Report)
        check_report(report, core, expected.plan)

    def _open(self, manifest: Manifest) -> Sealer:
        """What opens an update. Raises `Refused`: `roster` if it may be sealed to the keys that we had before."""
        try:
            return self._keyring.open(manifest.core, manifest.envelope)
        except Refused as refusal:
            if refusal.reason == "unsealing" and manifest.roster < self._keyring.version:
                detail = f"it does not open, made under version {manifest.roster}; here is {self._keyring.version}"
                raise Refused("roster", detail) from None
            raise

    def _begin(self, device: str) -> Upload | None:
        """A device's turn has come: its announcement is read again from the disk."""
        try:
            manifest = verify(self._announcement(device).read_bytes(), Manifest)
            upload = self._upload(manifest)
        except (OSError, Refused):
            return None  # it will announce again
        if not upload.incoming.path.exists():
            with suppress(OSError):  # it had its place already, but no outcome, when the last process ended
                self._chain.spool.path(device, upload.phase, self._state().phase).replace(upload.incoming.path)
        upload.incoming.resume()
        return upload

    def _upload(self, manifest: Manifest) -> Upload:
        core, device = manifest.core, manifest.sender
        opener = self._open(manifest)
        report = open_meta(opener, core, Report)
        incoming = Incoming(core, opener, self._folder / f"{device}.part")
        return Upload(device, manifest, name_of(core), core.phase, report, incoming)

    def _complete(self, upload: Upload) -> None:
        """All is here: open it, check it, record it for the round that is open, answer."""
        state = self._state()
        if self._must_wait(upload.phase, upload.device, state):
            upload.due = time.monotonic() + RETRY_S
            return
        if not self._speaks(upload):
            return
        core, sha256 = upload.incoming.core, None
        ended = Outcome(upload.transfer, upload.device, upload.phase, "accepted", "", "")
        try:
            if self._takes(upload.phase, state) is None:
                ended = replace(
                    ended, outcome="late", reason="closed", detail="the round closed before it was complete"
                )
            elif core.size:
                sha256 = self._spool(upload, state.phase)
        except Refused as error:
            ended = replace(ended, outcome="rejected", reason=error.reason, detail=error.detail)
        received, merged = upload.received_bytes, state.phase.round
        self._end(
            ended, upload.report, core, upload.manifest.key, received_bytes=received, sha256=sha256, merged=merged
        )
        self._forget(upload.device)

    def _spool(self, upload: Upload, used_in: Phase) -> str:
        incoming, expected = upload.incoming, self._chain.expectation(upload.phase)
        path = self._chain.spool.path(upload.device, upload.phase, used_in)
        sha256 = incoming.finish()
        if is_coded(incoming.core, expected.plan):
            decoded = self._folder / f"{upload.device}.decoded"
            sha256 = decode(incoming.path, expected, decoded)
            schema = check_weights(decoded, incoming.core, expected)
            with storing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                decoded.replace(path)  # what came stays until its outcome is recorded
        else:
            schema = check_weights(incoming.path, incoming.core, expected)
            incoming.move(path)
        sync(path)
        self._chain.accept_schema(schema)
        return sha256

    def _abandon(self, device: str, outcome: str, reason: str, detail: str) -> None:
        upload = self._uploads.get(device) or self._begin(device)
        if upload is None:
            self._forget(device)
        else:
            self._conclude(upload, outcome, reason, detail)

    def _conclude(self, upload: Upload, outcome: str, reason: str, detail: str) -> None:
        ended = Outcome(upload.transfer, upload.device, upload.phase, outcome, reason, detail)
        core, received = upload.incoming.core, upload.received_bytes
        self._end(ended, upload.report, core, upload.manifest.key, received_bytes=received, sha256=None)
        self._forget(upload.device)

    def _forget(self, device: str) -> None:
        for suffix in ("manifest", "part", "decoded"):
            (self._folder / f"{device}.{suffix}").unlink(missing_ok=True)
        self._uploads.remove(device, time.monotonic())

    def _end(
        self, ended: Outcome, report: Report | None, core: Core, key: str, *, received_bytes: int,
        sha256: str | None, merged: int | None = None,
    ) -> None:  # fmt: skip
        if ended.outcome != "accepted":
            self._log.refused(ended.device, ended.reason)
            if not self._has_room(ended):
                self._answer(ended, key)
                return
        self._log.update(ended, report, bytes_=received_bytes, sha256=sha256, suite=core.suite, merged=merged)
        self._answer(ended, key)
        self._ended(ended)

    def _has_room(self, ended: Outcome) -> bool:
        """Whether a refusal gets a row: the one that counts in the open phase does, of others only so many a phase."""
        state = self._state()
        counts = ended.outcome == "rejected" and ended.phase == state.phase
        if counts and not has_answer(ended.device, state):
            return True
        self._recorded[ended.device] = self._recorded.get(ended.device, 0) + 1
        return self._recorded[ended.device] <= RECORDED

    def _answer(self, ended: Outcome, key: str) -> None:
        self._wire.send(
            AnswerTo(self._wire.federation, ended.phase.lineage, ended.device),
            Answer,
            to=ended.device,
            to_key=key,
            transfer=ended.transfer,
            phase=ended.phase,
            outcome=ended.outcome,
            reason=ended.reason,
            detail=ended.detail[:500],
        )

    def _send_want(self, upload: Upload, ranges: Ranges) -> None:
        topic = WantTo(self._wire.federation, upload.phase.lineage, upload.device)
        self._wire.send(topic, Want, to=upload.device, transfer=upload.transfer, ranges=ranges)

    def _announcement(self, device: str) -> Path:
        return self._folder / f"{device}.manifest"
