"""Sequence numbers that grow over restarts, without a clock. Touches one small file."""

from __future__ import annotations

from pathlib import Path

from floe.errors import StoreError
from floe.files import write_atomically

SESSION = 2**32  # messages in one session; 2^21 sessions fit into the 2^53 of JSON numbers


class Sequence:
    """Counts upwards: the session (one more at each start, persisted) times 2^32, plus the message."""

    def __init__(self, path: Path) -> None:
        try:
            before = int(path.read_text()) if path.exists() else 0
        except (OSError, ValueError):
            raise StoreError(f"{path}: not a sequence number; restore it from a backup") from None
        self._next = (before + 1) * SESSION
        write_atomically(path, str(before + 1).encode())

    def next(self) -> int:
        """The next number, higher than all before, those of earlier processes included."""
        self._next += 1
        return self._next

    def last(self) -> int:
        """The highest number of this session: for the will, which must outrank all that went before it."""
        return (self._next // SESSION + 1) * SESSION - 1
