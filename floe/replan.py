"""`floe plan`: whether a training plan is sound; the one that an aggregator has for its next phases, another for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from floe.accounting import unaffordable
from floe.asker import load_asker
from floe.asking import ROUNDS, asking
from floe.cli import config_options, fit_of_data, to_aggregator
from floe.config import SHOWN, value_of
from floe.errors import ConfigError
from floe.idle import notes
from floe.plan import Plan
from floe.settings import Config
from floe.soundness import described, faults
from floe.steer import reply_options, tell
from floe.terminal import printable


@click.group()
def plan() -> None:
    """The training plan: check that of floe.toml; show or set that of a running aggregator.

    What is set is signed with the operator's key (`floe key operator`).
    """


@plan.command("check")
@config_options(rounds="rounds.count", devices="rounds.devices", quorum="rounds.quorum", fraction="rounds.fraction")
@click.option(
    "--data", "folders", multiple=True, metavar="D", help="data of a device, to try the plan on (again for more)"
)
def check_command(config: Config, folders: Sequence[str]) -> None:
    """Check the plan of floe.toml before anybody trains: each key, the keys together, and with the rounds.

    With --data also that the model can be made for it, whatever a device would refuse to begin with, and what private
    training costs its rows.
    """
    found = list(faults(config.plan, config.rounds)) or list(unaffordable(config.plan))
    for folder in folders:
        found += [f"{folder}: {fault}" for fault in fit_of_data().faults(config, folder)]
    for fault in found:
        click.echo(f"fault   {printable(fault)}")
    if found:
        raise ConfigError(f"the plan cannot be trained by: {len(found)} fault(s)")
    for line in described(config.plan, config.rounds):
        click.echo(line)
    for note in notes(config.plan):
        click.echo(f"note    {note}")
    for folder in folders:
        for line in fit_of_data().costs(config, folder):
            click.echo(f"private {printable(folder)}: {line}")
    click.echo(f"sound   {config.file or 'the defaults (no floe.toml)'}" + "".join(f", {folder}" for folder in folders))


@plan.command("show")
@reply_options
@to_aggregator
def show_command(config: Config, wait: float, as_json: bool) -> None:
    """Show the plan of the next phase that opens, as floe.toml has it: what is printed can stand there."""
    with asking(config, load_asker(config)) as connection:
        reply = connection.ask(ROUNDS, wait, action="status")
    if reply.done and not as_json:
        click.echo(f"# {printable(reply.detail)}\n{_words(reply.plan)}")
    else:
        tell(config, reply, "", as_json=as_json)


@plan.command("set")
@click.argument("pairs", metavar="KEY=VALUE...", nargs=-1, required=True)
@reply_options
@to_aggregator
def set_command(config: Config, pairs: Sequence[str], wait: float, as_json: bool) -> None:
    """Change keys of the plan: from the next phase that opens, which the reply names. The others stay as they are.

    The keys and their values are those of [plan] in floe.toml (`floe init --print`). What is set so counts until
    floe.toml has another plan, or it is set again.
    """
    changes = dict(_pair(pair) for pair in pairs)
    with asking(config, load_asker(config)) as connection:
        reply = connection.ask(ROUNDS, wait, action="status")
        if reply.done:
            wanted = msgspec.structs.replace(reply.plan, **changes)
            reply = connection.ask(ROUNDS, wait, action="plan", plan=wanted)
    tell(config, reply, "", as_json=as_json)


def _pair(pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    if not equals:
        raise ConfigError(
            f"{pair[:SHOWN]}: give KEY=VALUE, for example epochs=3; known: {', '.join(Plan.__struct_fields__)}"
        )
    return key, value_of("plan", key, text, f"[plan] {key[:SHOWN]}")


def _words(plan: Plan) -> str:
    return "\n".join(["[plan]", *(f"{key} = {json.dumps(value)}" for key, value in msgspec.to_builtins(plan).items())])
