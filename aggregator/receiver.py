"""Updates on their way from manifest to outcome: checked, received, opened, spooled, recorded, answered.

The order of a good one: `manifest` checks and makes room, `chunk` writes, `_complete` opens and checks the weights,
`_end` records the outcome and only then answers the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from aggregator.chain import Chain
from aggregator.intake import check_manifest, check_report, check_weights, phase_of
from aggregator.log import Log, Outcome
from aggregator.rounds import State
from aggregator.uploads import Upload, Uploads
from floe.errors import Refused
from floe.keyring import Keyring, open_meta
from floe.messages import Answer, Core, Manifest, Phase, Want
from floe.parcel import Incoming
from floe.report import Report
from floe.topics import AnswerTo, DeviceChunk, DeviceManifest, WantTo
from floe.transfer import Ranges, name_of
from floe.wire import Wire


class Receiver:
    """The aggregator's side of every update. `ended` is called once for each outcome, after it is on disk."""

    def __init__(
        self, wire: Wire, chain: Chain, log: Log, keyring: Keyring, *, folder: Path, slots: int,
        ended: Callable[[Outcome], None],
    ) -> None:  # fmt: skip
        self._wire = wire
        self._chain = chain
        self._log = log
        self._keyring = keyring
        self._folder = folder
        self._ended = ended
        self._uploads = Uploads(slots, self._send_want)

    def manifest(self, topic: DeviceManifest, manifest: Manifest, state: State) -> None:
        """An update is announced, for the first time or again. Its signature has been verified."""
        device, name = manifest.sender, name_of(manifest.core)
        if manifest.core.lineage != topic.lineage:
            # Not answered: an answer would go to the topic of a lineage that is not ours.
            raise Refused("malformed", f"an update for {manifest.core.lineage!r} on the topic of {topic.lineage!r}")
        if known := self._log.outcome(name):
            self._answer(known)
            return
        if self._log.pin(device, manifest.key) != manifest.key:
            self._answer(_outcome(manifest, "rejected", "unknown-key", "another key was seen first under this name"))
            raise Refused("unknown-key", "another key was seen first under this name")
        current = self._uploads.of(device)
        if current is not None and current.transfer == name:
            self._uploads.repeat(device, time.monotonic())
            return
        try:
            report = self._admit(manifest, topic, state)
        except Refused as refusal:
            late = refusal.reason == "round" and manifest.core.epoch == state.phase.epoch
            ended = _outcome(manifest, "late" if late else "rejected", refusal.reason, refusal.detail)
            self._end(ended, None, manifest.core, received_bytes=0, sha256=None)
            return
        if current is not None:
            self._abandon(current, "superseded", "newer", "a later update of this device came")
        self._receive(manifest, report)

    def chunk(self, topic: DeviceChunk, sealed: bytes) -> None:
        """One chunk; of an update that has its answer already (sent twice, or late) it is passed over."""
        upload = self._uploads.of(topic.device)
        if upload is None or upload.transfer != topic.transfer:
            return
        if self._uploads.add(upload, topic.index, sealed, time.monotonic()):
            self._complete(upload)

    def close_round(self) -> None:
        """What is still on its way when a round closes is late."""
        for upload in self._uploads.all():
            self._abandon(upload, "late", "closed", "the round closed before the transfer was complete")

    def offline(self, device: str) -> None:
        self._uploads.park(device, time.monotonic())

    def tick(self, now: float) -> None:
        self._uploads.tick(now)

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        return self._uploads.next_due()

    def _admit(self, manifest: Manifest, topic: DeviceManifest, state: State) -> Report:
        core, phase = manifest.core, state.phase
        check_manifest(manifest, topic, self._chain.expectation(phase))
        if state.stage != "open":
            raise Refused("round", f"{phase.task} {phase.round} is not open")
        if manifest.sender in state.accepted | state.refused:
            raise Refused("duplicate", f"an update of {phase.task} {phase.round} has its answer already")
        if manifest.sender not in state.expected and not self._chain.selects(manifest.sender, state):
            raise Refused("round", f"not selected for {phase.task} {phase.round}")
        report = open_meta(self._keyring.open(core, manifest.envelope), core, Report)
        check_report(report, core, self._chain.plan)
        return report

    def _receive(self, manifest: Manifest, report: Report) -> None:
        core, device = manifest.core, manifest.sender
        incoming = Incoming(core, self._keyring.open(core, manifest.envelope), self._folder / f"{device}.part")
        incoming.resume()
        upload = Upload(device, name_of(core), phase_of(core), report, incoming)
        if incoming.assembly.complete:
            self._complete(upload)
        else:
            self._uploads.offer(upload, time.monotonic())

    def _complete(self, upload: Upload) -> None:
        core, sha256 = upload.incoming.core, None
        ended = Outcome(upload.transfer, upload.device, upload.phase, "accepted", "", "")
        try:
            if core.size:
                sha256 = self._spool(upload)
        except Refused as error:
            ended = Outcome(upload.transfer, upload.device, upload.phase, "rejected", error.reason, error.detail)
        self._end(ended, upload.report, core, received_bytes=upload.received_bytes, sha256=sha256)
        self._uploads.remove(upload.device, time.monotonic())
        upload.incoming.remove()

    def _spool(self, upload: Upload) -> str:
        path = self._chain.spool(upload.phase) / f"{upload.device}.safetensors"
        sha256 = upload.incoming.open_to(path)
        try:
            schema = check_weights(path, upload.incoming.core, self._chain.expectation(upload.phase))
        except Refused:
            path.unlink()
            raise
        self._chain.accept_schema(schema)
        return sha256

    def _abandon(self, upload: Upload, outcome: str, reason: str, detail: str) -> None:
        ended = Outcome(upload.transfer, upload.device, upload.phase, outcome, reason, detail)
        self._end(ended, upload.report, upload.incoming.core, received_bytes=upload.received_bytes, sha256=None)
        self._uploads.remove(upload.device, time.monotonic())
        upload.incoming.remove()

    def _end(
        self, ended: Outcome, report: Report | None, core: Core, *, received_bytes: int, sha256: str | None
    ) -> None:
        self._log.update(ended, report, bytes_=received_bytes, sha256=sha256, suite=core.suite)
        self._answer(ended)
        self._ended(ended)

    def _answer(self, ended: Outcome) -> None:
        self._wire.send(
            AnswerTo(self._wire.federation, ended.phase.lineage, ended.device),
            Answer,
            to=ended.device,
            transfer=ended.transfer,
            phase=ended.phase,
            outcome=ended.outcome,
            reason=ended.reason,
            detail=ended.detail[:500],
        )

    def _send_want(self, upload: Upload, ranges: Ranges) -> None:
        topic = WantTo(self._wire.federation, upload.phase.lineage, upload.device)
        self._wire.send(topic, Want, to=upload.device, transfer=upload.transfer, ranges=ranges)


def _outcome(manifest: Manifest, outcome: str, reason: str, detail: str) -> Outcome:
    phase: Phase = phase_of(manifest.core)
    return Outcome(name_of(manifest.core), manifest.sender, phase, outcome, reason, detail)
