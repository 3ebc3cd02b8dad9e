"""`floe ...` with a wall clock that jumps: `python -m chaos.clock aggregator`, and a file that says how many seconds.

In place of libfaketime, which is not everywhere: what tells Floe the time of day is replaced in its process. The
monotonic clock stays, as in a real jump.
"""

from __future__ import annotations

import datetime
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

OFFSET = "CHAOS_CLOCK"
PACKAGES = ("floe", "aggregator", "edge_client")
_time, _localtime, _gmtime, _strftime = time.time, time.localtime, time.gmtime, time.strftime
_datetime = datetime.datetime


def offset() -> float:
    """What the file says; 0 if it is not there."""
    try:
        return float(Path(os.environ[OFFSET]).read_text() or 0)
    except FileNotFoundError:
        return 0.0


class Jumping(_datetime):
    """`datetime` by the clock that jumps."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


def patch() -> None:
    time.time = lambda: _time() + offset()
    time.time_ns = lambda: int((_time() + offset()) * 1e9)
    time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)  # type: ignore[assignment]
    time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)  # type: ignore[assignment]
    time.strftime = lambda form, moment=None: _strftime(form, moment or time.localtime())  # type: ignore[assignment]
    # Not in the module `datetime` itself: compiled packages check the size of its class.
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in PACKAGES and getattr(module, "datetime", None) is _datetime:
            module.datetime = Jumping  # type: ignore[attr-defined]


if __name__ == "__main__":
    from floe import cli

    importlib.import_module(cli.COMMANDS[sys.argv[1]][0])
    patch()
    sys.argv[0] = "floe"
    cli.main()
