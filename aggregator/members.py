"""The roster as an aggregator keeps it: the newest head, and every device's card, in the log.

What an operator changes is checked and on disk before it counts. Nothing is kept in memory but the head.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from aggregator.log import Log
from aggregator.succession import follows
from floe import merkle
from floe.documents import Card, Proof, RosterCommand
from floe.errors import KeyFileError, Refused
from floe.files import write_atomically
from floe.hpke import sealing_text
from floe.identity import present
from floe.keyring import EnrolledKeyring
from floe.messages import Message
from floe.names import RESERVED
from floe.operators import Operators
from floe.roster import Anchor, Roster, check_follows, hash_of_card, read_card, read_head
from floe.sqlite import Database
from floe.store import durably, now

SPENT = "-"  # whom an invitation was used by, once it has been decided upon: a key is longer
NEWEST = "head.newest"
AHEAD_S = 3600  # an operator's clock may be that far ahead of ours: all later heads must be issued later still
_RENEW = "`floe federation delegate` makes a new one, with the root key"


class Members:
    """Who belongs to the federation, and with which key. Raises `sqlite3.Error` when the disk refuses.

    `keyring` learns from it whom to seal to. `state` has our keys and the first head, which `floe federation new` made.
    """

    def __init__(
        self, log: Log, anchor: Anchor, lineage: str, key: str, keyring: EnrolledKeyring, state: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.anchor = anchor
        self._log = log
        self._db: Database = log.db
        self._lineage = lineage
        self._key = key
        self._keyring = keyring
        self._clock = clock
        self._state = state
        self.roster = self._load(state / "head")
        self._behind: Roster | None = None
        self._found: dict[str, str] = {}
        self._tell_keyring()
        self._compare_with_kept()

    def check_key(self, message: Message) -> None:
        """That a device may speak. Raises `Refused`: `not-enrolled`, `revoked`, `unknown-key`, `roster`."""
        self.check_complete()
        row = self._db.execute("SELECT state, signing FROM roster WHERE device = ?", [message.sender]).fetchone()
        if row is None:
            raise Refused("not-enrolled", f"the roster, version {self.roster.version}, has no {message.sender!r}")
        state, signing = row
        if signing != message.key:
            raise Refused("unknown-key", f"the roster has another key for {message.sender!r}")
        if state != "approved":
            raise Refused("revoked", f"{message.sender!r} has been revoked")

    def check_complete(self) -> None:
        """That nothing newer has been seen than what is here: an older card must not be told. Raises `Refused`."""
        if self._behind is not None:
            raise Refused(
                "roster",
                f"version {self._behind.version} of the roster is not complete here yet: if that stays so, restore the "
                "newer log",
            )

    @property
    def is_behind(self) -> bool:
        """Whether a newer roster has been seen than the one that is here."""
        return self._behind is not None

    def is_ours(self, key: str) -> bool:
        """Whether it is the key in use here, or the one that the newest head seen names for us."""
        return key in (self._key, (self._behind or self.roster).aggregator(self._lineage).signing)

    def card(self, device: str) -> str:
        """The text of a device's card; empty if it has none."""
        row = self._db.execute("SELECT card FROM roster WHERE device = ?", [device]).fetchone()
        return row[0] if row else ""

    def rotates(self, device: str) -> bool:
        """Whether an operator wants a device to have other keys."""
        row = self._db.execute("SELECT rotate FROM roster WHERE device = ?", [device]).fetchone()
        return bool(row and row[0])

    def place(self, device: str) -> Proof:
        """What shows an operator where a device's card stands in the head's tree."""
        return merkle.prove(self._cards(), device)

    def approved(self) -> list[str]:
        """The devices that take part, in the order of their names."""
        return [d for (d,) in self._db.execute("SELECT device FROM roster WHERE state = 'approved' ORDER BY device")]

    def all(self) -> list[str]:
        """Everybody who has a card, in the order of their names."""
        return [device for (device,) in self._db.execute("SELECT device FROM roster ORDER BY device")]

    def check_sender(self, command: RosterCommand) -> None:
        """That somebody may order about the roster: by the present delegation, or the one that the order brings.

        Raises `Refused`.
        """
        roster = self.roster
        if command.head:
            brought = read_head(command.head, self.anchor)
            roster = brought if brought.delegation.seq > roster.delegation.seq else roster
        self._check_operator(command.sender, command.key, roster)

    @property
    def changes_our_keys(self) -> bool:
        """Whether the roster names other keys for us than those in use: the next ones, which are here too."""
        return self.roster.aggregator(self._lineage).signing != self._key

    def operators(self) -> Operators:
        """Those who may steer rounds now; nobody when their delegation has ended."""
        if self.roster.delegation.until < self._clock():
            return Operators(fault=f"delegation {self.roster.delegation.seq} of the operators has ended: {_RENEW}")
        return Operators(self.roster.operators())

    def change(self, head_text: str, card_text: str) -> Card | None:
        """Take the next head, and the card that it brings, if any. Raises `Refused`: nothing has changed then."""
        self.check_complete()
        roster = read_head(head_text, self.anchor)
        check_follows(roster, self.roster)
        if roster.version != self.roster.version + 1:
            raise Refused("roster", f"version {roster.version} does not follow {self.roster.version}: fetch it again")
        self._check_now(roster)
        self._check_ourselves(roster)
        cards, card = self._cards(), None
        if card_text:
            card = self._check_card(card_text, roster)
            cards[card.member] = hash_of_card(card_text)
        if (merkle.root_of(cards), len(cards)) != (roster.head.tree, roster.head.count):
            raise Refused("roster", "the head's tree, or its count, is not that of the cards")
        self._take(roster, [(card, card_text)] if card else [])
        return card

    def is_far_below(self, text: str) -> bool:
        """Whether a head is of a version that cannot follow ours. Raises `Refused`."""
        return read_head(text, self.anchor).version > self.roster.version + 1

    def see_head(self, text: str) -> bool:
        """A head on the wire that may be newer than ours (a restored log): whether we are behind it now.

        Raises `Refused`, and `KeyFileError` where it shows that our keys are an older copy too.
        """
        if text == self.roster.text:
            return False
        roster = read_head(text, self.anchor)
        if roster.version <= (self._behind or self.roster).version:
            return False
        check_follows(roster, self.roster)
        self._check_now(roster)
        self._fall_behind(roster)
        return True

    def see_card(self, text: str) -> bool:
        """A card on the wire, while we are behind; whether it was the last that was missing."""
        if self._behind is None:
            return False
        card = read_card(text, self.anchor)
        known = self._found.get(card.member) or self.card(card.member)
        if known and read_card(known, self.anchor).seq >= card.seq:
            return False
        self._found[card.member] = text
        cards = self._cards() | {name: hash_of_card(found) for name, found in self._found.items()}
        if merkle.root_of(cards) != self._behind.head.tree:
            return False
        taken = [(read_card(found, self.anchor), found) for found in self._found.values()]
        self._take(self._behind, taken)
        return True

    def try_complete(self) -> bool:
        """Whether what is here is all that a newer head counts: then it is ours."""
        if self._behind is None or merkle.root_of(self._cards()) != self._behind.head.tree:
            return False
        self._take(self._behind, [])
        return True

    def _fall_behind(self, roster: Roster) -> None:
        try:
            self._check_ourselves(roster)
        except Refused as refusal:
            raise KeyFileError(
                f"{self._state / 'keys'}: an older copy: {refusal.detail}. Restore the newest copy of the state folder"
            ) from None
        self._behind, self._found = roster, {}

    def _check_now(self, roster: Roster) -> None:
        """That whoever signed a head may sign now: a delegation that has ended could be used for what is back-dated."""
        self._check_operator(roster.head.sender, roster.head.key, roster)
        if roster.head.issued > self._clock() + AHEAD_S:
            raise Refused("roster", f"issued at {roster.head.issued}, which is to come: is the operator's clock right?")

    def _check_operator(self, name: str, key: str, roster: Roster) -> None:
        delegation = roster.delegation
        if (name, key) not in roster.operators():
            raise Refused("unknown-key", f"operator {name!r} with this key is not in delegation {delegation.seq}")
        if delegation.until < self._clock():
            raise Refused("unknown-key", f"delegation {delegation.seq} has ended: {_RENEW}")

    def _take(self, roster: Roster, cards: list[tuple[Card, str]]) -> None:
        with durably(self._db):
            head = {"lineage": self._lineage, "version": roster.version, "head": roster.text, "changed_at": now()}
            self._db.table("heads").upsert(head, pk="lineage")
            for card, text in cards:
                row = {
                    "device": card.member, "state": card.state, "version": card.seq, "signing": card.keys.signing,
                    "suite": card.keys.suites[0], "hash": hash_of_card(text).hex(), "card": text, "rotate": 0,
                    "changed_at": now(),
                }  # fmt: skip
                self._db.table("roster").upsert(row, pk="device")
                self._db.execute("DELETE FROM requests WHERE device = ?", [card.member])
                self._db.execute("UPDATE invitations SET used_by = ? WHERE used_by = ?", [SPENT, card.keys.signing])
                self._log.enrolled(card.member, card.keys.signing, card.state)
        write_atomically(self._state / NEWEST, roster.text.encode())
        self.roster, self._behind, self._found = roster, None, {}
        self._tell_keyring()

    def _check_card(self, text: str, roster: Roster) -> Card:
        card, head = read_card(text, self.anchor), roster.head
        if (card.sender, card.key, card.seq) != (head.sender, head.key, head.seq):
            raise Refused("roster", "the card is not of the version, or not by the operator, of its head")
        names = {name for name, _ in roster.operators()} | {found.lineage for found in head.aggregators}
        if card.state == "approved" and card.member in names:
            raise Refused("roster", f"{card.member!r} is the name of an operator or a lineage: choose another")
        if card.state == "approved" and card.member in RESERVED:
            raise Refused("roster", f"{card.member!r} is a name that no device has: choose another")
        if card.state == "revoked" and head.group != head.seq:
            raise Refused("roster", "a revocation needs a new group key")
        return card

    def _check_ourselves(self, roster: Roster) -> None:
        ours = roster.aggregator(self._lineage)
        if (ours.signing, ours.sealing) != (self._key, self._sealing) and not follows(ours, self._state):
            raise Refused("roster", f"version {roster.version} names other keys for {self._lineage!r} than are here")

    def _load(self, first: Path) -> Roster:
        row = self._db.execute("SELECT head FROM heads WHERE lineage = ?", [self._lineage]).fetchone()
        try:
            text = row[0] if row else first.read_text(encoding="utf-8").strip()
            roster = read_head(text, self.anchor)
            self._check_ourselves(roster)
        except (OSError, UnicodeDecodeError) as error:
            fault = getattr(error, "strerror", None) or "not UTF-8"
            raise KeyFileError(
                f"{first}: cannot be read ({fault}), and the log has no roster: `floe federation new` makes it"
            ) from None
        except Refused as refusal:
            place = f"the roster in {self._log.path}" if row else f"{first}"
            raise KeyFileError(f"{place}: {refusal.detail}; restore it, or the key files") from None
        if not row:
            head = {"lineage": self._lineage, "version": roster.version, "head": text, "changed_at": now()}
            with durably(self._db):
                self._db.table("heads").upsert(head, pk="lineage")
        return roster

    def _compare_with_kept(self) -> None:
        """The newest head is kept outside the log too: a log that was restored from an older copy shows at once."""
        path = self._state / NEWEST
        try:
            kept = read_head(path.read_text(encoding="utf-8"), self.anchor) if present(path) else self.roster
        except (OSError, UnicodeDecodeError, Refused) as error:
            raise KeyFileError(f"{path}: damaged ({error}); remove it, if the log is not an older copy") from None
        if kept.version > self.roster.version:
            check_follows(kept, self.roster)
            self._fall_behind(kept)
            self.try_complete()
        elif kept.version < self.roster.version or not present(path):
            write_atomically(path, self.roster.text.encode())

    @property
    def _sealing(self) -> str:
        return sealing_text(self._keyring.private.public_key())

    def _cards(self) -> dict[str, bytes]:
        return {name: bytes.fromhex(found) for name, found in self._db.execute("SELECT device, hash FROM roster")}

    def _tell_keyring(self) -> None:
        ring = self._keyring.ring
        ring.version = self.roster.version
        quick = "SELECT count(*), sum(suite = 'aes-256-gcm') FROM roster WHERE state = 'approved'"
        all_, with_aes = self._db.execute(quick).fetchone()
        ring.model_suite = "aes-256-gcm" if all_ and all_ == with_aes else "chacha20-poly1305"
