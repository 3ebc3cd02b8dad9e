"""What a device tells of itself: its vitals at times, the lines of its own log soon after they were written.

No answer comes, and nothing is repeated: what is lost is lost. Published by `Device`, between two of its turns.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from floe.keyring import Keyring
from floe.messages import Manifest, Phase
from floe.parcel import seal_meta
from floe.settings import Device as DeviceSettings
from floe.telemetry import MAX_LINE, MAX_LINES, Level, Line, Telemetry, Vitals
from floe.topics import DeviceTelemetry
from floe.vitals import Sampler
from floe.wire import Wire

# Between these seconds a line is sent, by chance: what a whole fleet logs at once does not come at once.
SOON_S = {"info": (2.0, 10.0), "warning": (0.0, 2.0), "error": (0.0, 2.0)}
WAITING = 4 * MAX_LINES  # lines that are kept until there is a report for them
MANY = MAX_LINES // 2  # so many lines go as soon as they may
APART_S = 2.0  # between two reports, whatever there is to tell
FIRST_S = 10.0  # within which the first goes: a fleet that starts together does not speak in step
MAX_BYTES = 32_000  # of lines in a report, as JSON: sealed with any suite it fits into `Core.meta`
_LEVELS: dict[str, Level] = {"warning: ": "warning", "error: ": "error"}


class Journal:
    """The lines that were logged and not yet sent; the oldest make room. `hear` may be called by any thread.

    `least`: lines below that level are not kept; "none": no lines are.
    """

    def __init__(self, least: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._least = least
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: deque[tuple[float, Level, str]] = deque()
        self._dropped = 0
        self.due: float | None = None

    def hear(self, text: str) -> None:
        """A line was logged; its level is told by how it begins."""
        prefix = next((found for found in _LEVELS if text.startswith(found)), "")
        level: Level = _LEVELS.get(prefix, "info")
        if self._least == "none" or (self._least == "warning" and level == "info"):
            return
        with self._lock:
            if len(self._lines) == WAITING:
                self._lines.popleft()
                self._dropped += 1
            now = self._clock()
            self._lines.append((now, level, text.removeprefix(prefix)[:MAX_LINE]))
            due = now if len(self._lines) >= MANY else now + random.uniform(*SOON_S[level])  # noqa: S311 (jitter)
            self.due = due if self.due is None else min(due, self.due)

    def take(self, now: float) -> tuple[tuple[Line, ...], int]:
        """The oldest lines, as many as one report has room for, and how many before them were dropped."""
        found: list[Line] = []
        room = MAX_BYTES
        with self._lock:
            while self._lines and len(found) < MAX_LINES:
                at, level, text = self._lines[0]
                line = Line(max(now - at, 0.0), level, text)
                room -= len(msgspec.json.encode(line))
                if room < 0:
                    break
                found.append(line)
                self._lines.popleft()
            dropped, self._dropped = self._dropped, 0
            self.due = now if self._lines else None
        return tuple(found), dropped


class Reporter:
    """When a device reports, and what. `sample` takes its vitals."""

    def __init__(
        self, settings: DeviceSettings, keyring: Keyring, journal: Journal, sampler: Sampler, now: float
    ) -> None:
        self._interval_s = settings.telemetry_s
        self._keyring = keyring
        self._journal = journal
        self._sampler = sampler
        self._not_before = now
        self._regular_at = now + random.uniform(0, min(FIRST_S, self._interval_s))  # noqa: S311 (jitter)

    def is_due(self, now: float) -> bool:
        """Whether it is time for a report."""
        if not self._interval_s or now < self._not_before:
            return False
        return now >= min(self._regular_at, self._regular_at if self._journal.due is None else self._journal.due)

    def send(self, wire: Wire, phase: Phase, now: float, *, retries: int, model_sha256: str) -> None:
        """Publish a report, sealed for the aggregator of the lineage. `phase`: of the newest round document.

        Raises `Refused` where the roster has not said yet to whom.
        """
        vitals = self._sampler.sample(retries=retries, model_sha256=model_sha256 or None)
        meta = msgspec.json.encode(self._telemetry(vitals, now)).decode()
        core, content_key = seal_meta(
            meta, self._keyring, federation=wire.federation, phase=phase, kind="telemetry",
            sender=wire.identity.name, base="",
        )  # fmt: skip
        envelope = self._keyring.envelope(core, content_key, phase.lineage)
        topic = DeviceTelemetry(wire.federation, wire.identity.name, phase.lineage)
        wire.send(topic, Manifest, core=core, envelope=envelope, roster=self._keyring.version)

    def _telemetry(self, vitals: Vitals, now: float) -> Telemetry:
        lines, dropped = self._journal.take(now)
        self._not_before = now + APART_S
        self._regular_at = now + self._interval_s * random.uniform(0.9, 1.1)  # noqa: S311 (jitter)
        return Telemetry(**msgspec.structs.asdict(vitals), lines=lines, dropped=dropped)
