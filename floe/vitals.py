"""What psutil tells of this machine and this process. What it cannot tell is None, never an error."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import psutil

from floe.telemetry import Vitals

PROCESSOR = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")  # drivers
LOOPBACK = ("lo", "lo0")
_STARTED = time.monotonic()
_HINTS = get_type_hints(Vitals, include_extras=True)


class Sampler:
    """Samples of one process; it remembers the counters of the sample before. `folder`: on whose disk room counts."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._process: psutil.Process | None = None
        self._before: tuple[float, int, int] | None = None
        self._asked(lambda: psutil.cpu_percent(None))  # the first call only begins to count

    def sample(self, *, retries: int | None = None, model_sha256: str | None = None) -> Vitals:
        """How it is now. Does not block, and never raises."""
        memory, disk = self._asked(psutil.virtual_memory), self._asked(lambda: psutil.disk_usage(str(self._folder)))
        sent_bytes_s, received_bytes_s = self._rates()
        told = {
            "cpu_percent": self._asked(lambda: psutil.cpu_percent(None)),
            "memory_percent": memory and memory.percent,
            "process_bytes": self._asked(self._resident_bytes),
            "disk_percent": disk and disk.percent,
            "disk_free_bytes": disk and disk.free,
            "sent_bytes_s": sent_bytes_s,
            "received_bytes_s": received_bytes_s,
            "temperature_c": self._asked(_temperature_c),
            "uptime_s": time.monotonic() - _STARTED,
            "retries": retries,
            "model_sha256": model_sha256,
        }
        return Vitals(**{name: value for name, value in told.items() if _fits(name, value)})

    def _rates(self) -> tuple[float | None, float | None]:
        """Bytes a second, sent and received, since the sample before; None in the first, and after a counter's end."""
        counters = self._asked(lambda: psutil.net_io_counters(pernic=True)) or {}
        if not counters:
            return None, None
        nics = [counter for name, counter in counters.items() if name not in LOOPBACK]
        now = self._clock(), sum(n.bytes_sent for n in nics), sum(n.bytes_recv for n in nics)
        before, self._before = self._before, now
        if before is None or now[0] <= before[0]:
            return None, None
        seconds = now[0] - before[0]
        return (now[1] - before[1]) / seconds, (now[2] - before[2]) / seconds

    def _resident_bytes(self) -> int:
        self._process = self._process or psutil.Process()
        return int(self._process.memory_info().rss)

    @staticmethod
    def _asked(question: Callable[[], Any]) -> Any:
        """The answer, or None: what fails differs by machine and container (no /proc file, no sensor, no right)."""
        with suppress(Exception):
            return question()
        return None


def _temperature_c() -> float | None:
    """The hottest sensor of the processor, as far as its driver is known; else the hottest of all."""
    sensors = psutil.sensors_temperatures()
    chosen = [one for name in PROCESSOR for one in sensors.get(name, [])] or [
        one for found in sensors.values() for one in found
    ]
    return max((one.current for one in chosen if _fits("temperature_c", one.current)), default=None)


def _fits(name: str, value: object) -> bool:
    try:
        msgspec.convert(value, _HINTS[name])
    except msgspec.ValidationError:
        return False
    return True
