"""How a device asks to be let in: a request sealed to the aggregator, again and again, until the device is a member.

The request's token, nonce and what became of it are kept in `<state>/join.json`, mode 0600, until then.
"""

from __future__ import annotations

import math
import secrets
import sys
import time
from pathlib import Path

import click
import msgspec

from edge_client.membership import Membership
from floe.access import Access, Tls
from floe.documents import Join, JoinReply, JoinRequest
from floe.errors import BrokerError, KeyFileError, Refused, StoreError
from floe.files import storing
from floe.identity import present, read_private, write_private
from floe.joincode import JoinCode
from floe.keyring import Keyring, suite_here
from floe.messages import Suite
from floe.own_keys import OwnKeys
from floe.roster import number, seal_join
from floe.sequence import Sequence
from floe.service import Stop, log
from floe.session import Connected, Disconnected, Published, Received
from floe.settings import Config, Mqtt
from floe.terminal import large, printable
from floe.topics import CurrentRoster, DeviceJoin, EntryTo, JoinReplyTo, parse
from floe.wire import Wire

FIRST_S, LONGEST_S = 2.0, 30.0
PATIENCE_S = 10.0  # seconds without an answer, before it is said that there is none


class Asked(msgspec.Struct, frozen=True):
    """What has been asked for, with which key: the same after a restart."""

    token: str
    nonce: str
    key: str
    sealing: str
    version: int

    @classmethod
    def fresh(cls, code: JoinCode, key: str) -> Asked:
        return cls(code.token, secrets.token_hex(16), key, code.sealing, code.version)


def kept_asked(state: Path) -> Asked | None:
    """What was asked for from here; None if nothing was, or it is over. Raises `StoreError`, `KeyFileError`."""
    path = _file(state)
    if not present(path):
        return None
    try:
        return msgspec.json.decode(read_private(path), type=Asked)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: damaged ({error}); remove it, and ask with a new code") from None


def keep_asked(state: Path, asked: Asked) -> None:
    """Raises `StoreError`, `KeyFileError`."""
    forget_asked(state)
    write_private(_file(state), msgspec.json.encode(asked))


def forget_asked(state: Path) -> None:
    """Raises `StoreError`."""
    with storing(_file(state)):
        _file(state).unlink(missing_ok=True)


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
        suite: Suite = suite_here() if config.security.suite == "auto" else config.security.suite
        self._join = Join(asked.nonce, keys.public((suite,)), asked.token)
        mqtt, access = _lobby(config.mqtt)
        self._place = f"{mqtt.host}:{mqtt.port}"
        named = (self._federation, self._lineage)
        topics = (CurrentRoster(*named), EntryTo(*named, self._name), JoinReplyTo(*named, self._name))
        self._wire = Wire(
            mqtt, self._federation, keys.identity, Keyring("plaintext", None), Sequence(state / "sequence"), None,
            [str(topic) for topic in topics], access,
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
                if self._membership.is_approved(self._key):
                    forget_asked(self._state)
                    return True
                if self._shown and not wait:
                    return False
        finally:
            self._wire.close()
        return False

    def _ask(self, now: float) -> None:
        if self._tell_at and now >= self._tell_at and not self._shown:
            self._tell_at = 0.0
            what = "no answer" if self._membership.roster else "no roster, so no aggregator,"
            log(f"{what} yet over {self._place}: does aggregator {self._lineage!r} run? Still asking")
        if now < self._again_at:
            return
        sealed = seal_join(self._join, self._federation, self._lineage, self._name, self._recipient())
        topic = DeviceJoin(self._federation, self._name, self._lineage)
        self._request, payload = self._wire.make(JoinRequest, to=self._lineage, sealed=sealed)
        self._wire.send_bytes(topic, payload)
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
        detail = printable(reply.detail)
        match reply.state:
            case "rejected":
                raise KeyFileError(
                    f"{self._name!r} has been rejected by an operator{': ' * bool(detail)}{detail}. Ask for a new code "
                    "to try again"
                )
            case "refused":
                raise KeyFileError(f"aggregator {self._lineage!r} refuses {self._name!r}: {detail}")
            case "pending":
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


def _lobby(mqtt: Mqtt) -> tuple[Mqtt, Access | None]:
    """Where those ask who have no login. TLS there is not verified: the request is sealed, and the reply signed."""
    if not mqtt.lobby_port:
        return mqtt, None
    return msgspec.structs.replace(mqtt, port=mqtt.lobby_port), Access(tls=Tls(verify=False) if mqtt.tls else None)


def _file(state: Path) -> Path:
    return state / "join.json"
