"""The updates that are on their way in: who may upload now, what is asked for, and asked for again. No socket.

A want is the flow control: only so many devices are asked at a time, so memory and the broker's queues stay flat
however many announce an update. Of those that wait only the names are kept here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from floe.messages import Manifest, Phase
from floe.parcel import Incoming
from floe.report import Report
from floe.store import now
from floe.transfer import Ranges

REPAIR_S = 1.0  # silence after which what is missing is asked for again; doubles
STALLED_TRIES = 3  # fruitless wants after which another update of the same device may take its place
MAX_TRIES = 6  # fruitless wants after which the place goes to the next device


@dataclass
class Upload:
    """One update on its way in."""

    device: str
    manifest: Manifest
    transfer: str
    phase: Phase
    report: Report
    incoming: Incoming
    received_bytes: int = 0
    asked_to: int = -1
    due: float = 0.0
    tries: int = 0
    since: str = field(default_factory=now)  # as it stands in the log


class Uploads:
    """At most `slots` uploads at a time, the others in the order in which they were announced.

    `begin(device)` makes the upload of a device whose turn has come, or None if it came to nothing;
    `want(upload, ranges)` publishes a want.
    """

    def __init__(
        self, slots: int, begin: Callable[[str], Upload | None], want: Callable[[Upload, Ranges], None]
    ) -> None:
        self._slots = slots
        self._begin = begin
        self._want = want
        self._active: dict[str, Upload] = {}
        self._waiting: dict[str, tuple[str, Phase]] = {}

    def transfer_of(self, device: str) -> str | None:
        """The transfer that a device is uploading, or waits to upload."""
        active = self._active.get(device)
        return active.transfer if active else self._waiting.get(device, (None, None))[0]

    def phase_of(self, device: str) -> Phase | None:
        """The phase that this transfer is for."""
        active = self._active.get(device)
        return active.phase if active else self._waiting.get(device, (None, None))[1]

    def stalled(self, device: str) -> bool:
        """Whether a device was asked several times in vain: maybe it no longer has what it announced."""
        return device in self._active and self._active[device].tries > STALLED_TRIES

    def waits(self, device: str) -> bool:
        """Whether a device has announced an update whose turn has not come."""
        return device in self._waiting

    def get(self, device: str) -> Upload | None:
        """The upload of a device whose turn it is."""
        return self._active.get(device)

    def active(self) -> list[Upload]:
        """Those whose turn it is."""
        return list(self._active.values())

    def devices(self) -> list[str]:
        return [*self._active, *self._waiting]

    def complete(self, now: float) -> list[Upload]:
        """Uploads that are all there and due: what could not be finished before is to be tried again."""
        return [u for u in self._active.values() if u.incoming.assembly.complete and now >= u.due]

    def offer(self, device: str, transfer: str, phase: Phase, now: float) -> None:
        """A device announced a new update."""
        self._waiting[device] = (transfer, phase)
        self._fill(now)

    def repeat(self, device: str, now: float) -> None:
        """A device announced again what it is already uploading: it may have lost our want."""
        if (upload := self._active.get(device)) and now >= upload.due:
            self._ask(upload, now)

    def add(self, upload: Upload, index: int, sealed: bytes, now: float) -> bool:
        """Take one chunk; True when the transfer is complete. Raises `Refused("chunk")`, `StoreError`."""
        upload.received_bytes += len(sealed)
        if upload.incoming.add(index, sealed):
            upload.tries, upload.due = 0, now + REPAIR_S
        complete = upload.incoming.assembly.complete
        # Chunks come in order: after the last one asked for, a gap is a loss and need not be waited for.
        if not complete and index >= upload.asked_to:
            self._ask(upload, now)
        return complete

    def remove(self, device: str, now: float) -> None:
        """An update ended: its place goes to the next."""
        self._active.pop(device, None)
        self._waiting.pop(device, None)
        self._fill(now)

    def park(self, device: str, now: float) -> None:
        """A device went offline: its place goes to the next, what has arrived is kept."""
        upload = self._active.get(device)
        if upload and not upload.incoming.assembly.complete and self._waiting:
            self._to_the_end(upload)
            self._fill(now)

    def tick(self, now: float) -> None:
        """Ask again where nothing came; a device that stays silent goes to the end of the line."""
        for upload in [u for u in self._active.values() if now >= u.due]:
            if upload.tries >= MAX_TRIES and self._waiting:
                self._to_the_end(upload)
            else:
                self._ask(upload, now)
        self._fill(now)

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        return min((u.due for u in self._active.values()), default=None)

    def _to_the_end(self, upload: Upload) -> None:
        del self._active[upload.device]
        self._waiting[upload.device] = (upload.transfer, upload.phase)

    def _fill(self, now: float) -> None:
        while self._waiting and len(self._active) < self._slots:
            device = next(iter(self._waiting))
            upload = self._begin(device)
            self._waiting.pop(device, None)
            if upload is None:
                continue
            self._active[device] = upload
            upload.due = now
            self._ask(upload, now)

    def _ask(self, upload: Upload, now: float) -> None:
        missing = upload.incoming.assembly.missing()
        if not missing:
            return  # `complete` gives it out
        upload.asked_to = missing[-1][1] - 1
        upload.due = now + REPAIR_S * 2 ** min(upload.tries, 5)
        upload.tries += 1
        self._want(upload, missing)
