"""One input to one target, with a cap on CPU time and on memory: it may return or be refused, and nothing else."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

CPU_S = 2.0
MEMORY = 256 * 2**20
PAGE = resource.getpagesize()


class TooSlowError(Exception):
    """An input took longer than the cap, in seconds of CPU."""


def call(run: Callable[[bytes], object], data: bytes, allowed: tuple[type[Exception], ...]) -> bool:
    """Whether the target took the input; False if it refused it as it is allowed to.

    Whatever else it raises comes through: `TooSlowError` and `MemoryError` at the caps, too.
    """
    with capped():
        with suppress(*allowed):
            run(data)
            return True
        return False


@contextmanager
def capped(cpu_s: float = CPU_S, memory: int = MEMORY) -> Iterator[None]:
    """Let this process have so many seconds and bytes more than it has; only in the main thread."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    before = signal.signal(signal.SIGPROF, _too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def _too_slow(number: int, frame: FrameType | None) -> NoReturn:
    raise TooSlowError(f"more than {CPU_S:g} s of CPU")
