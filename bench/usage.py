"""What a process has used so far: processor time and memory, as the kernel counts them (proc(5)). Linux."""

from __future__ import annotations

import time
from pathlib import Path

_SCHED = 2  # CPUCLOCK_SCHED of the kernel's posix-timers.h


def peak_bytes(pid: int) -> int:
    """RSS at the most (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def cpu_seconds(pid: int) -> float:
    """Of all its threads, in the kernel and outside: /proc/<pid>/stat, but to the nanosecond instead of 10 ms.

    Raises `OSError` for a process that has ended.
    """
    return time.clock_gettime(~pid << 3 | _SCHED)  # what clock_getcpuclockid(3) makes of a process id


def only_child(pid: int) -> int:
    """The process that a process has started. Raises `ValueError` unless it is one."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
