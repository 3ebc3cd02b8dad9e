"""`floe aggregator`: from Config to a running aggregator."""

from __future__ import annotations

import sys

import click

from aggregator.log import Log
from aggregator.server import Aggregator
from floe.cli import config_options
from floe.config import Config
from floe.identity import load_identity
from floe.keyring import WARNING, load_keyring
from floe.service import log as tell
from floe.service import only_one, stopping


@click.command()
@config_options(
    host="mqtt.host",
    port="mqtt.port",
    federation="federation.name",
    lineage="rounds.lineage",
    rounds="rounds.count",
    devices="rounds.devices",
    quorum="rounds.quorum",
    deadline_s="rounds.deadline_s",
    model="plan.model",
    epochs="plan.epochs",
    report="plan.report",
    seed="plan.seed",
)
def aggregator(config: Config) -> None:
    """Run the rounds: ask the devices, average what they send, publish the global model, keep the log.

    It goes on where it was when it starts again, and serves the last model when all rounds are closed.
    """
    lineage = config.rounds.lineage
    state = config.path(config.paths.state) / f"aggregator-{lineage}"
    with stopping() as stop, only_one(state, "aggregator"):
        keyring = load_keyring(config, state)
        identity = load_identity(state / "keys", lineage)
        log = Log(config.path(config.paths.log))
        try:
            tell(f"aggregator {lineage!r} of {config.federation.name!r}: suite {keyring.suite}, log {log.path}")
            if keyring.secret is None:
                log.event("warning", "plaintext", WARNING)
            Aggregator(config, identity, keyring, log, state).run(stop)
            log.event("info", "stopped", "stopped; start it again to go on")
        finally:
            log.close()
    sys.exit(stop.code)
