"""Roster commands over one connection: what is there is fetched and verified, what is signed is sent; and once more
where another operator was quicker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from floe.asker import DELEGATE, KnownRoster, anchor_here, check_open, load_asker
from floe.asking import ROSTER, Asking, asking
from floe.documents import Delegation, Member, RosterReply
from floe.errors import BrokerError, FloeError, KeyFileError, Refused
from floe.identity import Identity
from floe.roster import Roster, read_head
from floe.settings import Config
from floe.sign_roster import Change, Place, place_of
from floe.terminal import printable

TRIES = 30  # of a change, above what others have changed meanwhile: more than anybody approves at once
REST_S = 0.5
REQUESTS = ("pending", "rotating")


@dataclass(frozen=True)
class Shown:
    """One device, verified: the roster of that moment, its place there, and its open request, if there is one."""

    roster: Roster
    place: Place
    request: Member | None
    rows: tuple[Member, ...]


class Managing:
    """An operator's hold of the roster. Raises `BrokerError`, `KeyFileError`, and `FloeError` for a command that was
    not followed.
    """

    def __init__(self, connection: Asking, known: KnownRoster, wait_s: float) -> None:
        self.known = known
        self._connection = connection
        self._wait_s = wait_s

    @property
    def operator(self) -> Identity:
        return self._connection.asker.identity

    @property
    def federation(self) -> str:
        return self.known.anchor.federation

    def ask(self, action: str, **fields: Any) -> RosterReply:
        """The reply to a command that was followed."""
        reply = self._ask(action, **fields)
        if not reply.done:
            raise self._not_followed(reply)
        return reply

    def list(self) -> Iterator[Member]:
        """All devices and requests, by name, page by page."""
        after, more = "", True
        while more:
            reply = self.ask("list", name=after)
            yield from reply.members
            more = reply.more and bool(reply.members) and reply.members[-1].name > after
            after = reply.members[-1].name if reply.members else after

    def show(self, name: str) -> Shown:
        """One device as the roster has it, proved."""
        reply = self.ask("show", name=name)
        roster = self._take(reply)
        try:
            place = place_of(reply, roster, self.known.anchor, name)
        except Refused as refusal:
            raise self._distrusted(refusal) from None
        rows = tuple(row for row in reply.members if row.name == name)
        request = next((row for row in rows if row.state in REQUESTS), None)
        return Shown(roster, place, request, rows)

    def newest(self) -> Roster:
        """The newest roster that is known, once there is one: what is retained comes before any reply."""
        if self.known.roster is None:
            self._connection.rest(self._wait_s, lambda: self.known.roster is not None)
        if self.known.roster is None:
            raise BrokerError(
                f"no head of the roster came within {self._wait_s:g} s: does aggregator {self._connection.lineage!r} "
                "run, and in this federation?"
            )
        return self.known.roster

    def check_may_sign(self, delegation: Delegation) -> None:
        """That this operator is of the delegation, and that it has not ended. Raises `KeyFileError`."""
        check_open(delegation, time.time())
        if not any(
            (found.name, found.key) == (self.operator.name, self.operator.key) for found in delegation.operators
        ):
            raise KeyFileError(
                f"operator {self.operator.name!r} with this key is not in delegation {delegation.seq}, the newest: "
                f"{DELEGATE}, adds it, and another operator's `floe federation publish` tells the members"
            )

    def change(self, name: str, shown: Shown, make: Callable[[Shown], Change]) -> Roster:
        """Have a device's card changed; the roster then. `make` signs above what is shown: again, with what is there
        then, if another operator was quicker.
        """

        def next_change() -> tuple[Roster, Change]:
            now = looks.pop() if looks else self.show(name)
            self.check_may_sign(now.roster.delegation)
            return now.roster, make(now)

        looks = [shown]
        return self.publish(next_change)

    def publish(self, make: Callable[[], tuple[Roster, Change]]) -> Roster:
        """Have the roster changed; the roster then. `make` gives a roster, and what was signed above it."""
        for _ in range(TRIES):
            before, change = make()
            reply = self._ask("change", card=change.card, head=change.head)
            roster = self._take(reply)
            if reply.done or roster.text == change.head:
                return roster
            if roster.version <= before.version:
                raise self._not_followed(reply)
        raise FloeError("other operators change the roster all the time: try again")

    def catch_up(self) -> None:
        """Hand the aggregator the newest head that is known here, where it has an older one (its log was restored, and
        the broker lost what was retained), until it has the cards that belong to it. Raises `FloeError`.
        """
        newest, until = self.newest(), time.monotonic() + self._wait_s
        while read_head(self.ask("list", name="z" * 64).head, self.known.anchor).version < newest.version:
            if time.monotonic() > until:
                raise FloeError(
                    f"aggregator {self._connection.lineage!r} cannot complete version {newest.version} of the roster: "
                    "the broker has lost entries too. Restore a newer copy of its log"
                )
            self._ask("change", head=newest.text)
            self.rest(REST_S)

    def rest(self, seconds: float) -> None:
        """Wait, and listen meanwhile."""
        self._connection.rest(seconds)

    def _ask(self, action: str, **fields: Any) -> RosterReply:
        return self._connection.ask(ROSTER, self._wait_s, action=action, **fields)

    def _take(self, reply: RosterReply) -> Roster:
        try:
            return self.known.take(reply.head)
        except Refused as refusal:
            raise self._distrusted(refusal) from None

    def _not_followed(self, reply: RosterReply) -> FloeError:
        return FloeError(f"aggregator {self._connection.lineage!r} did not follow: {printable(reply.detail)}")

    def _distrusted(self, refusal: Refused) -> FloeError:
        return FloeError(
            f"what aggregator {self._connection.lineage!r} shows of the roster is not to be believed: "
            f"{printable(refusal.detail)}. If it was restored from a backup, it catches up from what the broker "
            "keeps: try again in a minute, then `floe federation restored`"
        )


@contextmanager
def managing(config: Config, wait_s: float) -> Iterator[Managing]:
    """The hold of the roster for the block, over one connection. Raises `KeyFileError` where there is no enrolment."""
    if anchor_here(config) is None:
        raise KeyFileError(
            f"{config.path(config.security.federation)}: missing, so devices are not enrolled here; `floe federation "
            "new` begins it, or bring the file from where it was run"
        )
    asker = load_asker(config)
    assert asker.known is not None
    with asking(config, asker) as connection:
        yield Managing(connection, asker.known, wait_s)
