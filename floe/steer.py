"""`floe round`: an operator's signed commands to an aggregator, and its reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import msgspec

from floe.asker import load_asker
from floe.asking import ROUNDS, asking
from floe.cli import Numbers, to_aggregator
from floe.errors import FloeError
from floe.messages import Reply
from floe.settings import Config
from floe.terminal import printable

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
    run = click.option("--wait", type=Numbers(0.1, 3600), default=15.0, show_default=True, metavar="S",
                       help="seconds to wait for the reply")(run)  # fmt: skip
    round_.command(action)(to_aggregator(run))


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
    with asking(config, load_asker(config)) as connection:
        reply = connection.ask(ROUNDS, wait_s, action=action, rounds=rounds)
    shown = {"done": reply.done, "detail": reply.detail} | {name: getattr(reply, name) for name in SHOWN}
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(shown)))
    elif reply.done:
        click.echo(printable(reply.detail))
        click.echo(_words(reply)) if action == "status" else None
    if not reply.done:
        raise FloeError(f"aggregator {config.rounds.lineage!r} did not follow: {printable(reply.detail)}")


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
