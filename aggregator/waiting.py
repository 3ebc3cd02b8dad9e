"""Telemetry that was heard and is not written yet: bounded for each device and for all, and written in portions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from floe.telemetry import Telemetry

BURST = 4  # reports of one device that may wait
MAX_BYTES = 16_000_000  # of all reports that wait, as they were sent
REPORTS, LINES = 1000, 20_000  # that are written at once


@dataclass(frozen=True)
class Heard:
    """A report, heard at `time` (UTC, as in the log). `size`: bytes of it as it was sent."""

    device: str
    key: str
    seq: int
    time: str
    told: Telemetry
    size: int


class Waiting:
    """Reports in the order in which they were heard."""

    def __init__(self) -> None:
        self._all: deque[Heard] = deque()
        self._of: dict[str, list[Heard]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def newest(self, device: str, key: str) -> int | None:
        """The highest sequence of a device's reports under this key; None: none of them waits."""
        return max((one.seq for one in self._of.get(device, ()) if one.key == key), default=None)

    def has_room(self, device: str, size: int) -> bool:
        """Whether one more may wait."""
        return len(self._of.get(device, ())) < BURST and self._bytes + size <= MAX_BYTES

    def add(self, one: Heard) -> None:
        self._all.append(one)
        self._of.setdefault(one.device, []).append(one)
        self._bytes += one.size

    def take(self) -> list[Heard]:
        """The oldest, as many as are written at once; they wait no more."""
        taken: list[Heard] = []
        room = LINES
        while self._all and len(taken) < REPORTS and room >= len(self._all[0].told.lines):
            taken.append(one := self._all.popleft())
            room -= len(one.told.lines)
            self._bytes -= one.size
            self._of[one.device].pop(0)
            if not self._of[one.device]:
                del self._of[one.device]
        return taken
