"""A device's place in the roster: the newest head and its own entry, kept over restarts. One small file.

The head tells the aggregator's keys, the entry the group key of models. Versions only grow; whoever plays an older one
again is refused, also after a restart.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from floe.documents import Card, Entry
from floe.errors import Refused, StoreError
from floe.files import write_atomically
from floe.hpke import open_with
from floe.keyring import Ring
from floe.messages import Message
from floe.roster import Anchor, Roster, check_follows, group_info, read_card, read_head
from floe.signing import from_text, verify


class _File(msgspec.Struct):
    check: str
    head: str = ""
    entry: str = ""
    least: int = 0
    epoch: int = 0


class Membership:
    """What one device may believe about one lineage's federation, in `<state>/roster.json`. Raises `StoreError`.

    `ring` is kept up to date: what the device's keyring seals to, and opens with.
    """

    def __init__(self, state: Path, anchor: Anchor, device: str, lineage: str, sealing: X25519PrivateKey) -> None:
        self.ring = Ring()
        self.roster: Roster | None = None
        self.entry: Entry | None = None
        self.card: Card | None = None
        self.anchor = anchor
        self._device = device
        self._lineage = lineage
        self._sealing = sealing
        self._path = state / "roster.json"
        self._text = ""
        self._least = 0
        self._entry_epoch = 0  # in which the entry was taken: an aggregator that was restored counts anew in another
        try:
            kept = _read(self._path)
            self._least = kept.least
            if kept.head:
                self._believe(read_head(kept.head, anchor))
            if kept.entry:
                self._entry_epoch = kept.epoch
                self._take_kept(verify(kept.entry.encode(), Entry), kept.entry)
        except (OSError, ValueError, msgspec.DecodeError, Refused) as error:
            cause = getattr(error, "strerror", None) or error
            raise StoreError(
                f"{self._path}: damaged ({cause}); restore it, or remove it: it is fetched again"
            ) from None

    @property
    def epoch(self) -> int:
        """Of the aggregator's chain, below which nothing counts; 0 without a roster that names it."""
        found = self.roster.head.aggregators if self.roster else ()
        return next((aggregator.epoch for aggregator in found if aggregator.lineage == self._lineage), 0)

    def is_approved(self, key: str) -> bool:
        """Whether the roster has this device, with this signing key; only the newest says so that must be there."""
        if self.roster is None or self.roster.version < self._least:
            return False
        return self.card is not None and self.card.state == "approved" and self.card.keys.signing == key

    @property
    def is_revoked(self) -> bool:
        return self.card is not None and self.card.state == "revoked"

    def expect(self, version: int) -> None:
        """A roster below this version is an old one, whoever shows it. On disk when this returns. Raises `StoreError`.

        So says an invitation, which an operator has made from the roster, or an answer to a nonce of ours.
        """
        if version > self._least:
            self._least = version
            self._save(self.roster.text if self.roster else "", self._text, self._entry_epoch)

    def on_head(self, payload: bytes) -> bool:
        """A head of the roster; whether it is news. On disk when this returns. Raises `Refused`, `StoreError`."""
        text = payload.decode(errors="replace")
        if self.roster is not None and text == self.roster.text:
            return False
        roster = read_head(text, self.anchor)
        roster.aggregator(self._lineage)
        if self.roster is not None:
            check_follows(roster, self.roster)
        if roster.version < self._least:
            raise Refused("roster", f"version {roster.version}; the roster is at {self._least} at least")
        self._save(roster.text, self._text, self._entry_epoch)
        self._believe(roster)
        return True

    def on_entry(self, payload: bytes) -> bool:
        """The device's own entry; whether it is news. On disk when this returns. Raises `Refused`, `StoreError`."""
        entry, text = verify(payload, Entry), payload.decode()
        self.check_key(entry)
        if entry.sender != self._lineage or entry.federation != self.anchor.federation or entry.to != self._device:
            raise Refused("not-for-us", f"an entry of {entry.to!r} by {entry.sender!r}")
        if text == self._text:
            return False
        before, same_epoch = self.entry, self.epoch == self._entry_epoch
        if before is not None and (entry.group < before.group or (same_epoch and entry.seq < before.seq)):
            raise Refused("roster", "an older entry than the one that was seen before")
        card = read_card(entry.card, self.anchor)
        if card.member != self._device:
            raise Refused("not-for-us", f"the card of {card.member!r}")
        if self.card is not None and card.seq < self.card.seq:
            raise Refused("roster", f"an older card, of version {card.seq}, than the one of version {self.card.seq}")
        if self.roster is not None and card.seq > self.roster.version:
            raise Refused("roster", f"a card of version {card.seq}; known here is {self.roster.version}")
        group_key = self._open(entry)
        self._save(self.roster.text if self.roster else "", text, self.epoch)
        self._entry_epoch = self.epoch
        self._take(entry, text, group_key)
        return True

    def check_key(self, message: Message) -> None:
        """That the aggregator of this lineage speaks, as the roster names it. Raises `Refused`."""
        if self.roster is None:
            raise Refused("roster", "no head of the roster has come yet")
        if message.key != self.roster.aggregator(self._lineage).signing:
            raise Refused("unknown-key", f"not the key of {self._lineage!r} in version {self.roster.version}")

    def _open(self, entry: Entry) -> bytes:
        if not entry.group_key:
            return b""
        info = group_info(entry.federation, self._lineage, self._device, entry.group)
        return open_with(self._sealing, from_text(entry.group_key), info)

    def _believe(self, roster: Roster) -> None:
        self.roster = roster
        self.ring.version = roster.version
        self.ring.recipients = {found.lineage: found.sealing for found in roster.head.aggregators}

    def _take(self, entry: Entry, text: str, group_key: bytes) -> None:
        self.entry, self._text, self.card = entry, text, read_card(entry.card, self.anchor)
        self.ring.group, self.ring.group_key = entry.group, group_key

    def _take_kept(self, entry: Entry, text: str) -> None:
        """What was kept also counts if it is of the keys before a rotation: older ones than it are not believed."""
        if entry.sender != self._lineage:
            return
        group_key = b""
        with suppress(Refused):
            group_key = self._open(entry)
        self._take(entry, text, group_key)

    def _save(self, head: str, entry: str, epoch: int) -> None:
        file = _File("", head, entry, self._least, epoch)
        file.check = _check(file)
        write_atomically(self._path, msgspec.json.encode(file))


def _read(path: Path) -> _File:
    if not os.path.lexists(path):
        return _File("")
    file = msgspec.json.decode(path.read_bytes(), type=_File)
    if file.check != _check(file):
        raise ValueError("it is not as it was written")
    return file


def _check(file: _File) -> str:
    text = f"{file.least}\n{file.epoch}\n{len(file.head)}\n{file.head}{file.entry}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
