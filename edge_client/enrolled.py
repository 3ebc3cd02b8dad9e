"""What enrolment adds to a running device: the roster it follows, and the change of its keys when an operator asks.

It says what must be done; the device does it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_client.membership import Membership
from floe.documents import Entry, Join, JoinReply, JoinRequest
from floe.errors import KeyFileError
from floe.keyring import EnrolledKeyring
from floe.own_keys import OwnKeys, has_next, load_next
from floe.roster import endorsement_bytes, read_card, seal_join
from floe.service import log
from floe.session import Received
from floe.settings import Config
from floe.topics import CurrentRoster, DeviceJoin, EntryTo, JoinReplyTo, Topic
from floe.wire import Wire

LISTENS_TO = (CurrentRoster, EntryTo, JoinReplyTo)
AGAIN_S = 30.0


class Enrolled:
    """One device's membership while it runs. Raises `KeyFileError` when it has been put out, `StoreError`."""

    def __init__(self, config: Config, membership: Membership, keys: OwnKeys, keyring: EnrolledKeyring, state: Path):
        self.membership = membership
        self.changed_keys = False
        self._federation = config.federation.name
        self._lineage = config.rounds.lineage
        self._algorithm = config.security.signatures
        self._suite = keyring.suite
        self._keys = keys
        self._state = state
        self._ask_at = 0.0
        self._nonce = os.urandom(16).hex()

    @property
    def is_approved(self) -> bool:
        return self.membership.is_approved(self._keys.identity.key)

    def receive(self, wire: Wire, topic: Topic, received: Received) -> bool:
        """A message of the roster's; whether the device has just been let in. Raises `Refused`."""
        before = self.is_approved
        match topic:
            case CurrentRoster():
                if self.membership.on_head(received.payload):
                    log(f"roster: version {self.membership.ring.version}")
            case EntryTo():
                self._on_entry(wire.read(received, Entry, self._lineage), received.payload)
            case JoinReplyTo():
                self._on_reply(wire.read(received, JoinReply, self._lineage))
        return self.is_approved and not before

    def go_on(self, wire: Wire) -> None:
        """Ask for other keys, where an operator wants that, again and again until the roster has them."""
        entry, now = self.membership.entry, time.monotonic()
        if entry is None or not entry.rotate or not self.is_approved or now < self._ask_at:
            return
        self._ask_at = now + AGAIN_S
        name = self._keys.identity.name
        following = load_next(self._state, name, self._algorithm)
        keys = following.public((self._suite,))
        endorsement = self._keys.identity.sign_bytes(endorsement_bytes(self._federation, name, keys))
        recipient = self.membership.ring.recipients[self._lineage]
        join = Join(self._nonce, keys, endorsement=endorsement)
        sealed = seal_join(join, self._federation, self._lineage, name, recipient)
        payload = wire.make(JoinRequest, by=following.identity, to=self._lineage, sealed=sealed)[1]
        wire.send_bytes(DeviceJoin(self._federation, name, self._lineage), payload)
        log("an operator asks for other keys: made, and announced under the old one")

    def doubts(self, reason: str) -> bool:
        """Whether an answer says that this device has no place here, although the roster, as far as it is known here,
        says that it has: the aggregator's may be an older copy, or a newer entry is under way. It is asked again.
        """
        return reason in ("revoked", "not-enrolled", "unknown-key") and self.is_approved

    def _on_entry(self, entry: Entry, payload: bytes) -> None:
        self.membership.check_key(entry)
        signing, name = read_card(entry.card, self.membership.anchor).keys.signing, self._keys.identity.name
        if has_next(self._state, name) and load_next(self._state, name).identity.key == signing:
            self.changed_keys = True  # the device begins again with them, and reads this entry then
            return
        self.membership.on_entry(payload)
        self._check_not_revoked()

    def _on_reply(self, reply: JoinReply) -> None:
        self.membership.check_key(reply)
        if reply.nonce == self._nonce and reply.state in ("refused", "rejected"):
            log(f"warning: other keys were {reply.state}: {reply.detail or 'by an operator'}")

    def _check_not_revoked(self) -> None:
        if self.membership.is_revoked:
            raise KeyFileError(REVOKED.format(self._keys.identity.name))


REVOKED = (
    "device {!r} has been revoked by an operator: nothing of it is taken any more; to come back it needs a new "
    "invitation (`floe invite`, then `floe join` here)"
)
