"""`floe client`: from Config to a running device."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from pathlib import Path

import click

from edge_client.data.features import Features
from edge_client.data.load import load
from edge_client.device import Device
from edge_client.enrolled import Enrolled
from edge_client.lobby import Lobby
from edge_client.membership import Membership
from edge_client.telemetry import Journal
from floe.anchor import load_anchor
from floe.cli import config_options
from floe.errors import AccessError, ConfigError, KeyFileError
from floe.identity import load_identity
from floe.keyring import WARNING, load_enrolled, load_keyring, suite_here
from floe.own_keys import have_keys, load_keys, take_next
from floe.roster import Anchor
from floe.service import Stop, log, only_one, overhearing, stopping
from floe.settings import Config
from floe.topics import NAME


@click.command()
@config_options(
    id="device.id",
    data="device.data",
    host="mqtt.host",
    port="mqtt.port",
    federation="federation.name",
    lineage="rounds.lineage",
    report="device.report",
    threads="device.threads",
)
def client(config: Config) -> None:
    """Run one device: fetch the global model, train on data that stays here, send what the plan asks for.

    It waits for rounds until it is stopped, and goes on where it was when it starts again.
    """
    name = config.device.id
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"--id {name!r}: a device needs a name of [a-z0-9_-]{{1,64}} ([device] id)")
    state = config.path(config.paths.state) / f"device-{name}"
    sys.path.append(str(config.folder))  # a model or data of the user's own may lie beside floe.toml
    journal = Journal(config.device.journal if config.device.telemetry_s else "none")
    with stopping() as stop, only_one(state, "device"), overhearing(journal.hear):
        features = load(config.device.data, config.data, config.folder)
        rows = f"{len(features.train_x)} training and {len(features.test_x)} test rows"
        anchor = load_anchor(config, state)
        while _run(config, features, anchor, state, stop, rows, journal):
            take_next(state, name)
    if threading.active_count() > 1:
        os._exit(stop.code)  # the worker is inside something that cannot be interrupted, such as torch's import
    sys.exit(stop.code)


def _run(
    config: Config, features: Features, anchor: Anchor | None, state: Path, stop: Stop, rows: str, journal: Journal
) -> bool:
    name, lineage = config.device.id, config.rounds.lineage
    about = f"device {name!r} of {config.federation.name!r}: {rows}"
    if anchor is None:
        keyring = load_keyring(config, state, suite_here())
        log(f"{about}, suite {keyring.suite}")
        if keyring.suite == "plaintext":
            log(f"warning: {WARNING}")
        identity = load_identity(state / "keys", name, config.security.signatures)
        return Device(config, features, identity, keyring, state, journal=journal).run(stop)
    if not have_keys(state, name):
        raise KeyFileError(
            f"{state / 'keys'}: device {name!r} has not joined yet, or its keys are not all there: ask an operator for "
            f"an invitation (`floe invite --device {name}`), then run `floe join CODE --id {name}` here"
        )
    keys = load_keys(state, name, config.security.signatures)
    membership = Membership(state, anchor, name, lineage, keys.sealing)
    enrolled_keyring = load_enrolled(config, state, keys.sealing, membership.ring, suite_here())
    log(f"{about}, enrolled, suite {enrolled_keyring.suite}")
    enrolled = Enrolled(config, membership, keys, enrolled_keyring, state)
    lobby = Lobby(config, enrolled, keys.identity, state)
    while not (stop() or enrolled.changed_keys):
        since = time.monotonic()
        try:
            access = enrolled.papers.access(config.mqtt)
            device = Device(config, features, keys.identity, enrolled_keyring, state, enrolled, access, journal)
            return device.run(stop)
        except AccessError as error:
            lobby.wait(error, since, stop)
    return enrolled.changed_keys
