"""`floe aggregator`: from Config to a running aggregator."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import click

from aggregator.log import Log
from aggregator.server import Aggregator
from aggregator.succession import keys_by_roster
from floe.accounting import check_affordable
from floe.anchor import load_anchor
from floe.cli import config_options
from floe.errors import KeyFileError, StoreError
from floe.identity import load_identity
from floe.keyring import WARNING, Ring, load_enrolled, load_keyring
from floe.roster import Anchor
from floe.service import Stop, only_one, stopping
from floe.service import log as tell
from floe.settings import Config
from floe.soundness import check_sound


@click.command()
@config_options(
    host="mqtt.host",
    port="mqtt.port",
    federation="federation.name",
    lineage="rounds.lineage",
    rounds="rounds.count",
    devices="rounds.devices",
    mode="rounds.mode",
    quorum="rounds.quorum",
    grace_s="rounds.grace_s",
    deadline_s="rounds.deadline_s",
    late="rounds.late",
    model="plan.model",
    epochs="plan.epochs",
    report="plan.report",
    seed="plan.seed",
)
def aggregator(config: Config) -> None:
    """Run the rounds: ask the devices, average what they send, publish the global model, keep the log.

    It goes on where it was when it starts again, and serves the last model when all rounds are closed.
    """
    check_sound(config.plan, config.rounds)
    check_affordable(config.plan)
    lineage = config.rounds.lineage
    state = config.path(config.paths.state) / f"aggregator-{lineage}"
    folder = config.path(config.paths.log)
    with stopping() as stop, only_one(state, "aggregator"):
        anchor = load_anchor(config, state)
        try:
            with closing(Log(folder)) as log:
                _check_key(log, state, lineage)
                while _run(config, log, anchor, state, stop):
                    pass
                log.event("info", "stopped", "stopped; start it again to go on")
        except sqlite3.Error as error:
            raise StoreError(f"{folder}: {error}; move the log away to begin a new one, or restore a backup") from None
    sys.exit(stop.code)


def _run(config: Config, log: Log, anchor: Anchor | None, state: Path, stop: Stop) -> bool:
    """One run; whether there shall be another, as the roster says other than before."""
    lineage = config.rounds.lineage
    about = f"aggregator {lineage!r} of {config.federation.name!r}"
    if anchor is None:
        keyring = load_keyring(config, state)
        tell(f"{about}: suite {keyring.suite}, log {log.path}")
        if keyring.suite == "plaintext":
            log.event("warning", "plaintext", WARNING)
        return Aggregator(config, load_identity(state / "keys", lineage), keyring, log, state).run(stop)
    keys = keys_by_roster(log, anchor, lineage, state)
    enrolled = load_enrolled(config, state, keys.sealing, Ring())
    tell(f"{about}: enrolled devices, suite {enrolled.suite}, log {log.path}")
    return Aggregator(config, keys.identity, enrolled, log, state, anchor).run(stop)


def _check_key(log: Log, state: Path, lineage: str) -> None:
    """A chain that has begun goes on with its own key only: devices trust that one."""
    path = state / "keys" / f"{lineage}.pem"
    if log.known_epoch(lineage) is not None and not path.exists():
        raise KeyFileError(
            f"{path}: missing, but the log {log.path} has models of lineage {lineage!r}: restore the state folder, "
            "or begin anew with another --lineage and other folders"
        )
