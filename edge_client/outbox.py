"""The outbox: results stay here, sealed and on disk, until the aggregator has answered for them.

One that the disk has damaged is set aside and told of: its phase, if it is still open, is done again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from floe.files import storing
from floe.messages import Phase
from floe.parcel import Parcel, forget, saved_parcels
from floe.service import log

FIRST_S, LONGEST_S = 3.0, 60.0


@dataclass
class _Pending:
    parcel: Parcel
    due: float = 0.0
    pause: float = FIRST_S
    announced: bool = False
    asked: set[int] = field(default_factory=set)


class Outbox:
    """Parcels that wait for their answer, and when each is to be announced again (doubling pauses, with jitter).

    `retries`: announcements that were made, and chunks that were asked for, again.
    """

    def __init__(self, folder: Path) -> None:
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.retries = 0
        found = saved_parcels(folder, lambda text: log(f"warning: {text}"))
        self._pending = {parcel.name: _Pending(parcel) for parcel in found}

    def put(self, parcel: Parcel) -> None:
        """A parcel that `parcel.pack` has saved in `folder`: to be announced at once."""
        self._pending[parcel.name] = _Pending(parcel)

    def get(self, transfer: str) -> Parcel | None:
        pending = self._pending.get(transfer)
        return pending.parcel if pending else None

    def holds(self, phase: Phase) -> bool:
        """Whether the result of a phase is here."""
        return any(p.parcel.core.phase == phase for p in self._pending.values())

    def forget(self, transfer: str) -> None:
        """The answer came."""
        forget(self._pending.pop(transfer).parcel)

    def due(self, now: float) -> list[Parcel]:
        """What is to be announced now; the next time comes later."""
        found = [p for p in self._pending.values() if now >= p.due]
        for pending in found:
            pending.due = now + pending.pause * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)
            pending.pause = min(pending.pause * 2, LONGEST_S)
            self.retries += pending.announced
            pending.announced = True
        return [pending.parcel for pending in found]

    def heard(self, transfer: str, indices: Iterable[int], now: float) -> None:
        """The aggregator is at it, and asks for these chunks: no need to announce again soon."""
        if pending := self._pending.get(transfer):
            pending.due, pending.pause = now + 2 * FIRST_S, FIRST_S
            asked = set(indices)
            self.retries += len(asked & pending.asked)
            pending.asked |= asked

    def hurry(self) -> None:
        """The link is back: announce all at once."""
        for pending in self._pending.values():
            pending.due, pending.pause = 0.0, FIRST_S
