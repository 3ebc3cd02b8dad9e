"""The roster as the broker knows it: the newest head and the cards that it counts, verified from the root; one file.

A head and its cards come as single messages, in any order. What counts is the newest set that was complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker.members import Member, Members
from floe import merkle
from floe.documents import Card, Entry
from floe.errors import Refused, StoreError
from floe.files import storing, write_atomically
from floe.identity import present
from floe.logins import is_hash
from floe.roster import Anchor, Roster, check_follows, hash_of_card, read_card, read_head
from floe.signing import verify


class _File(msgspec.Struct):
    check: str
    head: str
    cards: list[str]


@dataclass(frozen=True)
class _Held:
    card: Card
    text: str
    digest: bytes


class Known:
    """`roster` is the newest that was complete, None before the first; `newest` may still lack cards.

    Raises `StoreError` for a file that is damaged or cannot be written.
    """

    def __init__(self, path: Path, anchor: Anchor) -> None:
        self.anchor = anchor
        self.roster: Roster | None = None
        self.newest: Roster | None = None
        self._path = path
        self._cards: dict[str, _Held] = {}
        self._complete: dict[str, _Held] = {}
        self._changed = False
        if present(path):
            self._load()

    def on_head(self, text: str) -> None:
        """A head that came. Raises `Refused`."""
        if self.newest is not None and text == self.newest.text:
            return
        roster = read_head(text, self.anchor)
        if self.newest is not None:
            check_follows(roster, self.newest)
        self.newest, self._changed = roster, True

    def on_entry(self, payload: bytes, lineage: str) -> None:
        """An entry that an aggregator published: its card. Raises `Refused`."""
        entry = verify(payload, Entry)
        if self.newest is None:
            raise Refused("roster", "no head of the roster has come yet")
        if (entry.federation, entry.sender) != (self.anchor.federation, lineage):
            raise Refused("not-for-us", f"an entry by {entry.sender!r} of {entry.federation!r}")
        if entry.key != self.newest.aggregator(lineage).signing:
            raise Refused("unknown-key", f"not the key of {lineage!r} in version {self.newest.version}")
        held = self._held(entry.card)
        before = self._cards.get(held.card.member)
        if before is None or (before.text != held.text and before.card.seq <= held.card.seq):
            self._cards[held.card.member] = held
            self._changed = True

    def settle(self) -> bool:
        """Whether what has come since makes the newest head complete: then it is `roster`, and on disk."""
        if not self._changed or self.newest is None:
            return False
        if not self._is_complete():
            self._changed = False
            return False
        cards = [held.text for held in self._cards.values()]
        write_atomically(
            self._path, msgspec.json.encode(_File(_check(self.newest.text, cards), self.newest.text, cards))
        )
        self.roster, self._complete, self._changed = self.newest, dict(self._cards), False
        return True

    def missing(self) -> str:
        """What the newest head lacks, in words; empty if it is complete."""
        if self.newest is None or self.newest is self.roster:
            return ""
        kept = f"version {self.roster.version} holds" if self.roster else "no device is let in"
        return (
            f"version {self.newest.version} of the roster counts {self.newest.head.count} cards, and "
            f"{len(self._cards)} are here, or others than it counts: until they come, {kept}"
        )

    def members(self, lineage: str, own: Mapping[str, str], *, passwords: bool) -> Members:
        """Who may log in. `own`: the fixed logins that this machine knows, with the hashes of their passwords or "";
        they and `lineage` get in before the first head. `passwords`: whether those of the cards count.
        """
        if self.roster is None:
            lineages = list(dict.fromkeys([lineage, *_named(own, "lineage.")]))
            operators = _named(own, "operator.")
        else:
            lineages = [found.lineage for found in self.roster.head.aggregators]
            operators = [name for name, _ in self.roster.operators()]
        cards = [held.card for _, held in sorted(self._complete.items()) if held.card.state == "approved"]
        return Members(
            self.anchor.federation,
            tuple(Member(card.member, _usable(card.keys.login) if passwords else "") for card in cards),
            tuple(Member(name, own.get(f"lineage.{name}", "")) for name in lineages),
            tuple(Member(name, own.get(f"operator.{name}", "")) for name in operators),
            own.get("broker", ""),
        )

    def _is_complete(self) -> bool:
        assert self.newest is not None
        digests = {name: held.digest for name, held in self._cards.items()}
        return len(digests) == self.newest.head.count and merkle.root_of(digests) == self.newest.head.tree

    def _held(self, text: str) -> _Held:
        return _Held(read_card(text, self.anchor), text, hash_of_card(text))

    def _load(self) -> None:
        with storing(self._path):
            raw = self._path.read_bytes()
        try:
            file = msgspec.json.decode(raw, type=_File)
            if file.check != _check(file.head, file.cards):
                raise ValueError("it is not as it was written")
            self.newest = read_head(file.head, self.anchor)
            self._cards = {held.card.member: held for held in map(self._held, file.cards)}
            if not self._is_complete():
                raise ValueError("its cards are not those that its head counts")
        except (ValueError, msgspec.DecodeError, Refused) as error:
            raise StoreError(
                f"{self._path}: damaged ({error}); remove it: it is fetched again, and until then only aggregators and "
                "operators get in"
            ) from None
        self.roster, self._complete = self.newest, dict(self._cards)


def _named(logins: Mapping[str, str], kind: str) -> list[str]:
    return [login.removeprefix(kind) for login in sorted(logins) if login.startswith(kind)]


def _usable(text: str) -> str:
    return text if is_hash(text) else ""


def _check(head: str, cards: list[str]) -> str:
    return hashlib.sha256("\n".join([head, *cards]).encode()).hexdigest()[:16]
