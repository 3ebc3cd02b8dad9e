"""`floe round`: an operator's signed commands to an aggregator, and its reply. Keeps a sequence and a pinned key."""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from floe.cli import config_options
from floe.errors import BrokerError, ConfigError, FloeError, KeyFileError, Refused
from floe.files import write_atomically
from floe.identity import Identity
from floe.keyring import Keyring, load_keyring
from floe.messages import Command, Message, Reply
from floe.operators import load_operator
from floe.sequence import SESSION, Sequence
from floe.service import log, only_one, stopping
from floe.session import Connected, Disconnected, Published, Received
from floe.settings import Config
from floe.terminal import printable
from floe.topics import OperatorCommand, ReplyTo
from floe.wire import Wire

AGAIN_S = 2.0
SHOWN = ("phase", "stage", "held", "last", "online", "expected", "accepted", "refused", "quorum", "seconds_left")


@click.group("round")
def round_() -> None:
    """Steer the rounds of an aggregator. Commands are signed with the operator's key (`floe key operator`)."""


def _command(action: str, meaning: str, *extra: Callable[[Any], Any]) -> None:
    def run(config: Config, wait: float, as_json: bool, rounds: int | None = None) -> None:
        _steer(config, action, rounds or 0, wait, as_json=as_json)

    run.__doc__ = meaning
    for option in extra:
        run = option(run)
    run = click.option("--json", "as_json", is_flag=True, help="one JSON object")(run)
    run = click.option("--wait", type=click.FloatRange(0.1, 3600), default=15.0, show_default=True, metavar="S",
                       help="seconds to wait for the reply")(run)  # fmt: skip
    given = config_options(host="mqtt.host", port="mqtt.port", federation="federation.name", lineage="rounds.lineage")(
        run
    )
    round_.command(action)(given)


_command(
    "start",
    "Let the rounds go on, with whichever devices are online; after the last, begin anew.",
    click.option("--rounds", type=click.IntRange(1, 1_000_000), metavar="N", help="train N rounds more"),
)
_command("stop", "Close the open round now, and open no other.")
_command("pause", "Open no round after the open one, until `resume` or `start`.")
_command("resume", "Take back `pause`.")
_command("status", "Show where the rounds stand.")


def _steer(config: Config, action: str, rounds: int, wait_s: float, *, as_json: bool) -> None:
    if not math.isfinite(wait_s):
        raise ConfigError(f"--wait {wait_s}: allowed is a number of seconds from 0.1 to 3600")
    security, lineage = config.security, config.rounds.lineage
    operator = load_operator(config.path(security.operator_key), config.path(security.operators))
    state = config.path(config.paths.state) / f"operator-{operator.name}"
    with stopping() as stop, only_one(state, "command of this operator"):
        asked = _Asked(config, operator, load_keyring(config, state), state)
        reply = asked.ask(stop, wait_s, to=lineage, action=action, rounds=rounds)
    if reply is None:
        sys.exit(stop.code)
    shown = {"done": reply.done, "detail": reply.detail} | {name: getattr(reply, name) for name in SHOWN}
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(shown)))
    elif reply.done:
        click.echo(printable(reply.detail))
        click.echo(_words(reply)) if action == "status" else None
    if not reply.done:
        raise FloeError(f"aggregator {lineage!r} did not follow: {printable(reply.detail)}")


class _Asked:
    """One command on its way."""

    def __init__(self, config: Config, operator: Identity, keyring: Keyring, state: Path) -> None:
        self._lineage = config.rounds.lineage
        self._federation = config.federation.name
        self._operator = operator
        self._keyring = keyring
        self._pinned = state / f"aggregator-{self._lineage}.pub"
        self._place = f"{config.mqtt.host}:{config.mqtt.port}"
        replies = ReplyTo(self._federation, self._lineage, operator.name)
        self._sequence = Sequence(state / "sequence")
        self._wire = Wire(config.mqtt, self._federation, operator, keyring, self._sequence, None, [str(replies)])

    def ask(self, stop: Callable[[], bool], wait_s: float, **fields: Any) -> Reply | None:
        """Send it, again and again as it is, until the reply is there; None if somebody wants us to end.

        Where the aggregator knows a newer command of this key (our state folder was lost, or is another machine's), a
        fresh one is sent above that, once. Raises `BrokerError`, and `KeyFileError` for a reply of another aggregator
        than the first.
        """
        session, until = self._wire.session, time.monotonic() + wait_s
        topic = OperatorCommand(self._federation, self._operator.name, self._lineage)
        command, payload = self._make(**fields)
        session.connect(lambda: stop() or time.monotonic() >= until, log)
        again_at, outranked = 0.0, False
        try:
            while not stop():
                now = time.monotonic()
                if now >= until:
                    raise BrokerError(self._nobody(wait_s))
                if session.connected and now >= again_at:
                    self._wire.send_bytes(topic, payload)
                    again_at = now + AGAIN_S
                match session.next(min(0.25, until - now)):
                    case Connected():
                        again_at = 0.0
                    case Disconnected(reason):
                        log(f"connection lost: {reason}; trying again")
                    case Published(refusal) if refusal:
                        raise BrokerError(f"the broker at {self._place} refused the command: {refusal}; check its ACL")
                    case Received() as received:
                        session.ack(received)
                        reply = self._reply(received, command)
                        if reply and reply.newest > command.seq and not outranked:
                            outranked = self._wire.outrank(reply.newest)
                            command, payload = self._make(**fields)
                            again_at = 0.0
                        elif reply:
                            return reply
        finally:
            self._wire.close()
        return None

    def _make(self, **fields: Any) -> tuple[Command, bytes]:
        """A fresh command. Its number in the session is drawn: two machines with one key must not give one twice."""
        return self._wire.make(Command, seq=self._sequence.next() + secrets.randbelow(SESSION // 2), **fields)

    def _reply(self, received: Received, command: Message) -> Reply | None:
        try:
            reply = self._wire.read(received, Reply, self._lineage)
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
            f"no reply from aggregator {self._lineage!r} over {self._place} within {wait_s:g} s: does it run, and in "
            "this federation? What was asked for may still be followed"
        )

    def _check_key(self, reply: Reply) -> None:
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


def _words(reply: Reply) -> str:
    phase = reply.phase
    rows = [
        ("phase", f"{phase.task} {phase.round} of {reply.last} (epoch {phase.epoch}), {reply.stage}"),
        ("held", reply.held or "no"),
        ("devices", f"{reply.online} online, {reply.expected} expected"),
        ("updates", f"{reply.accepted} accepted, {reply.refused} refused, quorum {reply.quorum}"),
        ("left", f"{reply.seconds_left:.0f} s"),
    ]
    return "\n".join(f"{name:8} {text}" for name, text in rows)
