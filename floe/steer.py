"""`floe round`: an operator's signed commands to an aggregator, and its reply; what all such commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from floe.asker import load_asker
from floe.asking import ROUNDS, asking
from floe.cli import Numbers, to_aggregator
from floe.errors import FloeError
from floe.messages import Reply
from floe.settings import Config
from floe.terminal import printable

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = (
    *("phase", "stage", "held", "last", "online", "expected", "accepted", "refused", "quorum", "seconds_left"),
    "plan",
)


@click.group("round")
def round_() -> None:
    """Steer the rounds of an aggregator. Commands are signed with the operator's key (`floe key operator`)."""


def _command(action: str, meaning: str, *extra: Callable[[Any], Any]) -> None:
    def run(config: Config, wait: float, as_json: bool, rounds: int | None = None) -> None:
        with asking(config, load_asker(config)) as connection:
            reply = connection.ask(ROUNDS, wait, action=action, rounds=rounds or 0)
        tell(config, reply, _words(reply) if action == "status" else "", as_json=as_json)

    run.__doc__ = meaning
    for option in extra:
        run = option(run)
    round_.command(action)(to_aggregator(reply_options(run)))


def reply_options(command: F) -> F:
    """`--wait` and `--json`, of a command that waits for a `Reply`."""
    command = click.option("--json", "as_json", is_flag=True, help="one JSON object")(command)
    return click.option("--wait", type=Numbers(0.1, 3600), default=15.0, show_default=True, metavar="S",
                        help="seconds to wait for the reply")(command)  # fmt: skip


_command(
    "start",
    "Let the rounds go on, with whichever devices are online; after the last, begin anew.",
    click.option("--rounds", type=click.IntRange(1, 1_000_000), metavar="N", help="train N rounds more"),
)
_command("stop", "Close the open round now, and open no other.")
_command("pause", "Open no round after the open one, until `resume` or `start`.")
_command("resume", "Take back `pause`.")
_command("status", "Show where the rounds stand.")


def tell(config: Config, reply: Reply, more: str, *, as_json: bool) -> None:
    """Print what became of a command, and `more` about it. Raises `FloeError` if it was not followed."""
    shown = {"done": reply.done, "detail": reply.detail} | {name: getattr(reply, name) for name in SHOWN}
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(shown)))
    elif reply.done:
        click.echo("\n".join(filter(None, [printable(reply.detail), more])))
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
