"""How a device asks to be let in: a request sealed to the aggregator, again and again, until the device is a member."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import click

from edge_client.asked import Asked, ask, check_not_turned_down, forget_asked
from edge_client.entrance import is_on_card, papers_of, take_papers
from edge_client.membership import Membership
from floe.documents import Join, JoinReply, JoinRequest
from floe.errors import BrokerError, Refused
from floe.keyring import Keyring, suite_here
from floe.messages import Suite
from floe.own_keys import OwnKeys
from floe.papers import lobby
from floe.roster import number
from floe.sequence import Sequence
from floe.service import Stop, log
from floe.session import Connected, Disconnected, Published, Received
from floe.settings import Config
from floe.terminal import large
from floe.topics import CurrentRoster, EntryTo, JoinReplyTo, parse
from floe.wire import Wire

FIRST_S, LONGEST_S = 2.0, 30.0
PATIENCE_S = 10.0  # seconds without an answer, before it is said that there is none


class Joining:
    """One device that asks. Raises `BrokerError`, `StoreError`, and `KeyFileError` when it is turned down."""

    def __init__(self, config: Config, keys: OwnKeys, membership: Membership, asked: Asked, state: Path) -> None:
        self._config = config
        self._lineage = config.rounds.lineage
        self._federation = config.federation.name
        self._name = keys.identity.name
        self._key = keys.identity.key
        self._membership = membership
        membership.expect(asked.version)
        self._asked = asked
        self._state = state
        self._papers = papers_of(state, self._name)
        suite: Suite = suite_here() if config.security.suite == "auto" else config.security.suite
        public = keys.public((suite,), *self._papers.public(config.mqtt))
        self._join = Join(asked.nonce, public, asked.token)
        mqtt, access = lobby(config.mqtt)
        self._place = f"{mqtt.host}:{mqtt.port}"
        named = (self._federation, self._lineage)
        topics = (CurrentRoster(*named), EntryTo(*named, self._name), JoinReplyTo(*named, self._name))
        self._wire = Wire(
            mqtt, self._federation, keys.identity, Keyring("plaintext", None), Sequence(state / "sequence"), None,
            [str(topic) for topic in topics], access or self._papers.access(mqtt),
        )  # fmt: skip
        self._request: JoinRequest | None = None
        self._again_at = math.inf  # until our subscriptions are on their way
        self._pause_s = FIRST_S
        self._shown = ""
        self._tell_at = 0.0

    def run(self, stop: Stop, *, wait: bool) -> bool:
        """Ask until the device is a member (true), or, if not to `wait`, until there is an answer (false)."""
        session = self._wire.session
        session.connect(stop, log)
        self._tell_at = time.monotonic() + PATIENCE_S
        try:
            while not stop():
                self._ask(time.monotonic())
                match session.next(0.25):
                    case Connected():
                        self._hurry()
                    case Disconnected(reason):
                        self._again_at = math.inf
                        log(f"connection lost: {reason}; trying again")
                    case Published(refusal) if refusal:
                        raise BrokerError(f"the broker at {self._place} refused the request: {refusal}; check its ACL")
                    case Received() as received:
                        session.ack(received)
                        self._receive(received)
                if self._is_member():
                    take_papers(self._papers, self._membership)
                    forget_asked(self._state)
                    return True
                if self._shown and not wait:
                    return False
        finally:
            self._wire.close()
        return False

    def _is_member(self) -> bool:
        return self._membership.is_approved(self._key) and is_on_card(self._papers, self._membership, self._config.mqtt)

    def _ask(self, now: float) -> None:
        if self._tell_at and now >= self._tell_at and not self._shown:
            self._tell_at = 0.0
            what = "no answer" if self._membership.roster else "no roster, so no aggregator,"
            log(f"{what} yet over {self._place}: does aggregator {self._lineage!r} run? Still asking")
        if now < self._again_at:
            return
        self._request = ask(self._wire, self._lineage, self._recipient(), self._join)
        self._again_at, self._pause_s = now + self._pause_s, min(2 * self._pause_s, LONGEST_S)

    def _recipient(self) -> str:
        """Whom the request is sealed to: as the roster names the aggregator now, else as the code did."""
        roster = self._membership.roster
        return roster.aggregator(self._lineage).sealing if roster else self._asked.sealing

    def _hurry(self) -> None:
        self._again_at, self._pause_s = 0.0, FIRST_S

    def _receive(self, received: Received) -> None:
        try:
            match parse(received.topic):
                case CurrentRoster():
                    if self._membership.on_head(received.payload) and self._again_at < math.inf and not self._shown:
                        self._hurry()
                case EntryTo():
                    self._membership.on_entry(received.payload)
                case JoinReplyTo():
                    self._on_reply(self._wire.read(received, JoinReply, self._lineage))
        except Refused as refusal:
            log(f"refused {received.topic}: {refusal}")

    def _on_reply(self, reply: JoinReply) -> None:
        self._membership.check_key(reply)
        if (reply.to, reply.to_key, reply.nonce) != (self._name, self._key, self._join.nonce) or not self._request:
            return  # to another request than ours
        self._membership.expect(reply.version)  # our nonce is in it: so it is of now
        if reply.state in ("refused", "rejected"):
            forget_asked(self._state)  # it is decided: to go on with it would be told the same
        check_not_turned_down(reply)
        if reply.state == "pending":
            self._show(number(self._request, self._join, reply.challenge))

    def _show(self, digits: str) -> None:
        if digits == self._shown:
            return
        self._shown = digits
        spaced = f"{digits[:3]} {digits[3:]}"
        click.echo(f"\n{large(spaced)}\n" if sys.stdout.isatty() else f"number {spaced}")
        click.echo(
            f"number {spaced}: tell it to the operator, who compares it: floe devices approve {self._name}", err=True
        )
