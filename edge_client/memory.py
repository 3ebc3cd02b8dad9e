"""What a device remembers over restarts: whom it trusts (without enrolment), what it has seen, which phase it has done.

One small file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from floe.errors import Refused, StoreError
from floe.files import write_atomically
from floe.keyring import Keyring
from floe.messages import Message, Phase


class _File(msgspec.Struct):
    check: str
    kept: msgspec.Raw


class _Kept(msgspec.Struct):
    aggregator_key: str = ""
    seen: dict[str, int] = {}
    answered: list[Phase] = []
    epoch: int = 0
    roster: int = 0


class Memory:
    """The memory of one device for one lineage, in `<state>/memory.json`. Raises `StoreError`."""

    def __init__(self, state: Path) -> None:
        self._path = state / "memory.json"
        self._changed = False
        try:
            self._kept = _read(self._path)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            cause = getattr(error, "strerror", None) or error
            raise StoreError(f"{self._path}: damaged ({cause}); restore it, or remove it to begin anew") from None

    def check_key(self, message: Message, keyring: Keyring) -> None:
        """Pin the key of the aggregator's first message that proves it; raises `Refused("unknown-key")` for another."""
        if not self._kept.aggregator_key:
            if not keyring.proves(message):
                way_out = "do this device and the aggregator have the same secret.key, or both none?"
                raise Refused("unknown-key", f"{message.sender!r} does not prove that it knows our secret; {way_out}")
            self._kept.aggregator_key = message.key
            self._save()
        if self._kept.aggregator_key != message.key:
            raise Refused("unknown-key", f"not the aggregator's key that was seen first; pinned in {self._path}")

    def follow(self, epoch: int) -> None:
        """The roster says that the aggregator's chain is in an epoch, at least: what was seen before counts no more.

        An aggregator that was restored from a backup counts from where the backup was.
        """
        if epoch > self._kept.epoch:
            self._kept.epoch, self._kept.seen = epoch, {}
            self._save()

    @property
    def roster(self) -> int:
        """The newest version of the roster that was seen here; `roster.json` has the same, and may be lost alone."""
        return self._kept.roster

    def saw_roster(self, version: int) -> None:
        """Remember it. On disk when this returns."""
        if version > self._kept.roster:
            self._kept.roster = version
            self._save()

    def newer(self, stream: str, seq: int) -> bool:
        """Whether a message is not older than the newest of its stream (rounds, models); `save` remembers it."""
        newest = self._kept.seen.get(stream, 0)
        if seq > newest:
            self._kept.seen[stream] = seq
            self._changed = True
        return seq >= newest

    def save(self) -> None:
        """Remember what was seen: before anything is done about it."""
        if self._changed:
            self._save()

    def answered(self, phase: Phase) -> bool:
        """Whether the aggregator has answered for this device's part in a phase."""
        return phase in self._kept.answered

    def remember_answer(self, phase: Phase) -> None:
        """Phases of the newest round are enough: older ones are never open again."""
        newest = max([phase, *self._kept.answered], key=lambda p: (p.epoch, p.round))
        same = [p for p in {*self._kept.answered, phase} if (p.epoch, p.round) == (newest.epoch, newest.round)]
        self._kept.answered = sorted(same, key=lambda p: p.task)
        self._save()

    def _save(self) -> None:
        # Synced, though little of it is a promise: a file system may lose a file that was renamed before it was
        # written, and a device without its memory waits for a person. Two or three times a round, not for each message.
        kept = msgspec.json.encode(self._kept)
        write_atomically(self._path, msgspec.json.encode(_File(_check(kept), msgspec.Raw(kept))))
        self._changed = False


def _read(path: Path) -> _Kept:
    if not os.path.lexists(path):
        return _Kept()
    file = msgspec.json.decode(path.read_bytes(), type=_File)
    if file.check != _check(bytes(file.kept)):
        raise ValueError("it is not as it was written")
    return msgspec.json.decode(file.kept, type=_Kept)


def _check(kept: bytes) -> str:
    return hashlib.sha256(kept).hexdigest()[:16]
