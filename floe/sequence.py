"""Sequence numbers that grow over restarts, without a clock. Touches one small file."""

from __future__ import annotations

import threading
from pathlib import Path

from floe.errors import StoreError
from floe.files import write_atomically

SESSION = 2**32  # messages in one session
SESSIONS = 2**21  # of them fit into the 2^53 of JSON numbers


class Sequence:
    """Counts upwards: the session (one more at each connection, persisted) times 2^32, plus the message.

    May be used from any thread. Raises `StoreError` if the file is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._next = 0
        self._session = read_session(path)
        self.renew()

    def renew(self) -> None:
        """Begin a session, higher than all that went before; one that said nothing yet goes on."""
        with self._lock:
            if self._next == self._session * SESSION and self._next:
                return
            self._session += 1
            write_atomically(self._path, str(self._session).encode())
            self._next = self._session * SESSION

    def next(self) -> int:
        """The next number, higher than all before, those of earlier processes included."""
        with self._lock:
            self._next += 1
            return self._next

    def outrank(self, seq: int) -> bool:
        """Go on above a number of ours that the world has seen, if it is higher than ours; whether it was.

        So it is after the file was lost, restored from a backup, or copied to another machine.
        """
        with self._lock:
            if seq <= self._next:
                return False
            self._session, self._next = seq // SESSION, seq
        self.renew()
        return True

    def last(self) -> int:
        """The highest number of this session: for the will, which must outrank what went before it."""
        return (self._session + 1) * SESSION - 1


def read_session(path: Path) -> int:
    """The session that a file remembers, 0 without one. Raises `StoreError`."""
    try:
        session = int(path.read_text())
        if not 0 <= session < SESSIONS - 1:
            raise ValueError
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; {_WAY_OUT}") from None
    except ValueError:
        raise StoreError(f"{path}: not a sequence number; {_WAY_OUT}") from None
    return session


_WAY_OUT = (
    "restore it from a backup. Remove it only if this state folder is new: whoever has seen a higher number ignores "
    "messages with a lower one"
)
