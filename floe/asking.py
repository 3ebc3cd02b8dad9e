"""An operator's connection: signed commands, one after another, and the aggregator's replies.

Enrolled, the roster says whose reply counts; otherwise the key of the first aggregator that replied is pinned.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from floe.anchor import load_anchor
from floe.asker import Asker
from floe.documents import RosterCommand, RosterReply
from floe.errors import BrokerError, KeyFileError, Refused
from floe.files import write_atomically
from floe.keyring import Keyring, load_keyring
from floe.messages import Command, Message, Reply
from floe.papers import entrance
from floe.roster import Roster
from floe.sequence import SESSION, Sequence
from floe.service import Stop, log, only_one, stopping
from floe.session import Connected, Disconnected, Published, Received
from floe.settings import Config
from floe.topics import CurrentRoster, OperatorCommand, OperatorRoster, ReplyTo, RosterReplyTo, Topic, parse
from floe.wire import Wire

AGAIN_S = 2.0
R = TypeVar("R", Reply, RosterReply)


@dataclass(frozen=True)
class Talk(Generic[R]):
    """One kind of command: the messages, and the topics they travel on."""

    command: type[Message]
    reply: type[R]
    asks: Callable[[str, str, str], Topic]
    answers: type[ReplyTo | RosterReplyTo]


ROUNDS = Talk(Command, Reply, OperatorCommand, ReplyTo)
ROSTER = Talk(RosterCommand, RosterReply, OperatorRoster, RosterReplyTo)


class Asking:
    """Commands of one operator to one aggregator. One at a time."""

    def __init__(self, config: Config, asker: Asker, stop: Stop) -> None:
        self.asker = asker
        self.lineage = config.rounds.lineage
        self._federation = config.federation.name
        self._stop = stop
        self._pinned = asker.state / f"aggregator-{self.lineage}.pub"
        self._place = f"{config.mqtt.host}:{config.mqtt.port}"
        self._keyring = load_keyring(config, asker.state) if asker.known is None else Keyring("plaintext", None)
        self._connections = 0  # how often our subscriptions were made: a reply to what is sent before may be lost
        self._sequence = Sequence(asker.state / "sequence")
        self._drawn = secrets.randbelow(SESSION // 2)  # two machines with one key must not give a number twice
        name = asker.identity.name
        filters: list[Topic] = [talk.answers(self._federation, self.lineage, name) for talk in (ROUNDS, ROSTER)]
        if asker.known is not None:
            filters.insert(0, CurrentRoster(self._federation, self.lineage))
        texts = [str(topic) for topic in filters]
        access = entrance(config, f"operator.{name}")
        self._wire = Wire(
            config.mqtt, self._federation, asker.identity, self._keyring, self._sequence, None, texts, access
        )

    def ask(self, talk: Talk[R], wait_s: float, **fields: Any) -> R:
        """Send a command, again and again as it is, until its reply is there.

        Where the aggregator knows a newer command of this key (our state folder was lost, or is another machine's), a
        fresh one is sent above that, once. Ends the process if somebody wants that. Raises `BrokerError`, and
        `KeyFileError` for a reply of another aggregator than the first.
        """
        session, until = self._wire.session, time.monotonic() + wait_s
        topic = talk.asks(self._federation, self.asker.identity.name, self.lineage)
        command, payload = self._make(talk, fields)
        session.connect(lambda: self._stop() or time.monotonic() >= until, log)
        again_at, sent_on, outranked = 0.0, 0, False
        while not self._stop():
            now = time.monotonic()
            if now >= until:
                raise BrokerError(self._nobody(wait_s))
            if session.connected and self._connections and (now >= again_at or sent_on < self._connections):
                self._wire.send_bytes(topic, payload)
                again_at, sent_on = now + AGAIN_S, self._connections
            reply = self._reply(self._next(until - now), talk, command)
            if isinstance(reply, Reply) and reply.newest > command.seq and not outranked:
                outranked = self._wire.outrank(reply.newest)
                command, payload = self._make(talk, fields)
                again_at = 0.0
            elif reply:
                return reply
        sys.exit(self._stop.code)

    def rest(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Listen, for so many seconds or until it is `enough`."""
        until = time.monotonic() + seconds
        self._wire.session.connect(lambda: self._stop() or time.monotonic() >= until, log)
        while (left := until - time.monotonic()) > 0 and not (self._stop() or enough()):
            self._reply(self._next(left), ROSTER, None)
        if self._stop():
            sys.exit(self._stop.code)

    def close(self) -> None:
        self._wire.close()

    def _next(self, left_s: float) -> Received | None:
        match self._wire.session.next(min(0.25, left_s)):
            case Connected():
                self._connections += 1
            case Disconnected(reason):
                log(f"connection lost: {reason}; trying again")
            case Published(refusal) if refusal:
                raise BrokerError(f"the broker at {self._place} refused the command: {refusal}; check its ACL")
            case Received() as received:
                self._wire.session.ack(received)
                return received
        return None

    def _make(self, talk: Talk[R], fields: dict[str, Any]) -> tuple[Message, bytes]:
        """A fresh command, with a number above those of all that this connection has given before."""
        seq = self._sequence.next() + self._drawn
        return self._wire.make(talk.command, seq=seq, to=self.lineage, **fields)

    def _reply(self, received: Received | None, talk: Talk[R], command: Message | None) -> R | None:
        if received is None:
            return None
        try:
            topic = parse(received.topic)
            if isinstance(topic, CurrentRoster) and self.asker.known is not None:
                self.asker.known.take(received.payload.decode(errors="replace"))
            if not isinstance(topic, talk.answers) or command is None:
                return None
            reply = self._wire.read(received, talk.reply, self.lineage)
            if (reply.to_key, reply.command) != (command.key, command.seq):
                return None
            self._check_key(reply)
        except Refused as refusal:
            log(f"refused {received.topic}: {refusal}")
            return None
        return reply

    def _nobody(self, wait_s: float) -> str:
        if not self._wire.session.connected:
            return f"no broker at {self._place} within {wait_s:g} s; start one with `floe broker`, or see [mqtt]"
        return (
            f"no reply from aggregator {self.lineage!r} over {self._place} within {wait_s:g} s: does it run, and in "
            "this federation? What was asked for may still be followed"
        )

    def _check_key(self, reply: Message) -> None:
        if self.asker.known is not None:
            self._check_enrolled(reply, self.asker.known.roster)
        else:
            self._check_pinned(reply)

    def _check_enrolled(self, reply: Message, roster: Roster | None) -> None:
        if roster is None:
            raise Refused("roster", "no head of the roster has come yet, which names the aggregator's key")
        if reply.key != roster.aggregator(self.lineage).signing:
            raise Refused("unknown-key", f"not the key of {self.lineage!r} in version {roster.version} of the roster")

    def _check_pinned(self, reply: Message) -> None:
        if not self._pinned.exists():
            if not self._keyring.proves(reply):
                raise Refused("unknown-key", f"{reply.sender!r} does not prove that it knows our secret.key")
            write_atomically(self._pinned, reply.key.encode())
        pinned = self._pinned.read_bytes()
        if len(pinned) != len(reply.key):
            way_out = "restore it, or remove it to trust the next aggregator that replies"
            raise KeyFileError(f"{self._pinned}: damaged; {way_out}")
        if pinned != reply.key.encode():
            raise KeyFileError(
                f"another aggregator answered as {reply.sender!r} than before; if it was replaced on purpose, remove "
                f"{self._pinned}"
            )


@contextmanager
def asking(config: Config, asker: Asker) -> Iterator[Asking]:
    """A connection for the block, and this machine's only one of this operator."""
    with stopping() as stop, only_one(asker.state, "command of this operator"):
        load_anchor(config, asker.state)
        connection = Asking(config, asker, stop)
        try:
            yield connection
        finally:
            connection.close()
