"""What enrolment adds to a running device: the roster it follows, and what it asks: to be let in, for other keys.

It says what must be done; the device does it.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from edge_client.asked import ask, check_not_turned_down, forget_asked, kept_asked
from edge_client.entrance import papers_of, take_papers
from edge_client.membership import Membership
from floe.documents import Entry, Join, JoinReply
from floe.errors import KeyFileError
from floe.keyring import EnrolledKeyring
from floe.own_keys import OwnKeys, has_next, load_next
from floe.roster import endorsement_bytes, read_card
from floe.service import log
from floe.session import Received
from floe.settings import Config
from floe.terminal import printable
from floe.topics import CurrentRoster, EntryTo, JoinReplyTo, Topic
from floe.wire import Wire

LISTENS_TO = (CurrentRoster, EntryTo, JoinReplyTo)
FIRST_S = 2.0  # after a connection was made: until then what is retained may come
AGAIN_S = 30.0


class Enrolled:
    """One device's membership while it runs. Raises `KeyFileError` when it has been put out, `StoreError`."""

    def __init__(self, config: Config, membership: Membership, keys: OwnKeys, keyring: EnrolledKeyring, state: Path):
        self.membership = membership
        self.changed_keys = False
        self.papers = papers_of(state, keys.identity.name)
        self.new_papers = take_papers(self.papers, membership)
        self._mqtt = config.mqtt
        self._federation = config.federation.name
        self._lineage = config.rounds.lineage
        self._algorithm = config.security.signatures
        self._suite = keyring.suite
        self._keys = keys
        self._state = state
        self._ask_at = 0.0
        self._silent_until = 0.0
        asked = kept_asked(state)
        self._asked = asked if asked and asked.key == keys.identity.key else None
        self._nonce = self._asked.nonce if self._asked else _fresh()
        membership.expect(self._asked.version if self._asked else 0)

    @property
    def is_approved(self) -> bool:
        return self.membership.is_approved(self._keys.identity.key)

    def expect(self, version: int) -> None:
        """What `memory.json` remembers of the roster's version: `roster.json` may be missing, or an older copy."""
        place, here = self._state / "roster.json", self.membership.ring.version
        if version > here:
            what = f"an older copy, of version {here}" if here else "missing"
            log(f"warning: {place}: {what}; waiting for version {version} of the roster, which was seen before")
            self.membership.expect(version)
        elif not (version or here or self._asked):
            forgotten = "what was seen of the roster is forgotten: any version of it that is shown is believed"
            log(f"warning: {place}: missing, and memory.json does not know either; {forgotten}")

    def receive(self, wire: Wire, topic: Topic, received: Received) -> bool:
        """A message of the roster's; whether the device has just been let in. Raises `Refused`."""
        before = self.is_approved
        match topic:
            case CurrentRoster():
                if self.membership.on_head(received.payload):
                    log(f"roster: version {self.membership.ring.version}")
                self._silent_until = 0.0
            case EntryTo():
                self._on_entry(wire.read(received, Entry, self._lineage), received.payload)
            case JoinReplyTo():
                self._on_reply(wire.read(received, JoinReply, self._lineage))
        self.new_papers |= take_papers(self.papers, self.membership)
        return self.is_approved and not before

    def connected(self) -> None:
        """To the broker, or the aggregator is again: what was retained, or under way, may be lost: ask again soon."""
        self._ask_at = self._silent_until = time.monotonic() + FIRST_S

    @property
    def may_announce(self) -> bool:
        """Whether the newest head is here, as far as that can be known: updates are sealed to the keys in it."""
        return time.monotonic() >= self._silent_until

    def go_on(self, wire: Wire) -> None:
        """Ask what must be asked, again and again until the roster has it: to be let in, or for other keys."""
        now, approved = time.monotonic(), self.is_approved
        if approved and self._asked is not None:
            self._asked, self._nonce, self._ask_at = None, _fresh(), now
            forget_asked(self._state)
        if now < self._ask_at:
            return
        if not approved:
            self._ask_at = now + AGAIN_S
            self._ask_in(wire)
        elif self.membership.entry is not None and self.membership.entry.rotate:
            self._ask_at = now + AGAIN_S
            self._ask_other_keys(wire)

    def _ask_in(self, wire: Wire) -> None:
        """What `floe join` has asked; a member whose entry was lost needs no token: the aggregator knows its keys."""
        recipient = self.membership.ring.recipients.get(self._lineage) or (self._asked and self._asked.sealing)
        if recipient:
            token = self._asked.token if self._asked else ""
            keys = self._keys.public((self._suite,), *self.papers.public(self._mqtt))
            ask(wire, self._lineage, recipient, Join(self._nonce, keys, token))

    def _ask_other_keys(self, wire: Wire) -> None:
        name = self._keys.identity.name
        following = load_next(self._state, name, self._algorithm)
        keys = following.public((self._suite,), *self.papers.public(self._mqtt))
        endorsement = self._keys.identity.sign_bytes(endorsement_bytes(self._federation, name, keys))
        recipient = self.membership.ring.recipients[self._lineage]
        ask(wire, self._lineage, recipient, Join(self._nonce, keys, endorsement=endorsement), following.identity)
        log("an operator asks for other keys: made, and announced under the old one")

    def doubts(self, reason: str) -> bool:
        """Whether an answer says that this device has no place here, although the roster, as far as it is known here,
        says that it has: the aggregator's may be an older copy, or a newer entry is under way. It is asked again.
        """
        return reason in ("revoked", "not-enrolled", "unknown-key") and self.is_approved

    def _on_entry(self, entry: Entry, payload: bytes) -> None:
        self.membership.check_key(entry)
        card, own, name = read_card(entry.card, self.membership.anchor), self.membership.card, self._keys.identity.name
        if has_next(self._state, name) and load_next(self._state, name).identity.key == card.keys.signing:
            self.changed_keys = True  # the device begins again with them, and reads this entry then
            return
        is_for_us = (entry.to, card.member) == (name, name)
        if is_for_us and self.is_approved and own and card.seq > own.seq and card.keys.signing != own.keys.signing:
            raise KeyFileError(DISPLACED.format(name))
        self.membership.on_entry(payload)
        self._check_not_revoked()

    def _on_reply(self, reply: JoinReply) -> None:
        self.membership.check_key(reply)
        if reply.to != self._keys.identity.name or reply.nonce != self._nonce:
            return  # to another request than ours
        self.membership.expect(reply.version)  # our nonce is in it: so it is of now
        if not self.is_approved:
            check_not_turned_down(reply)
        elif reply.state == "rejected":
            self._nonce = _fresh()  # should they be asked for again, that is another request
        if reply.state in ("refused", "rejected"):
            log(f"warning: other keys were {reply.state}: {printable(reply.detail) or 'by an operator'}")

    def _check_not_revoked(self) -> None:
        if self.membership.is_revoked:
            raise KeyFileError(REVOKED.format(self._keys.identity.name))


DISPLACED = (
    "an operator has let another device in under the name {!r}, in the place of this one; if that is wrong, have it "
    "put out again (`floe devices revoke`), and ask for a new invitation"
)
REVOKED = (
    "device {!r} has been revoked by an operator: nothing of it is taken any more; to come back it needs a new "
    "invitation (`floe invite`, then `floe join` here)"
)


def _fresh() -> str:
    return secrets.token_hex(16)
