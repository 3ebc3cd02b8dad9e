"""`floe client`: from Config to a running device."""

from __future__ import annotations

import os
import re
import sys
import threading

import click

from edge_client.data.load import load
from edge_client.device import Device
from floe.cli import config_options
from floe.errors import ConfigError
from floe.identity import load_identity
from floe.keyring import WARNING, load_keyring, suite_here
from floe.service import log, only_one, stopping
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
    with stopping() as stop, only_one(state, "device"):
        features = load(config.device.data, config.data, config.folder)
        keyring = load_keyring(config, state, suite_here())
        identity = load_identity(state / "keys", name, config.security.signatures)
        rows = f"{len(features.train_x)} training and {len(features.test_x)} test rows"
        log(f"device {name!r} of {config.federation.name!r}: {rows}, suite {keyring.suite}")
        if keyring.secret is None:
            log(f"warning: {WARNING}")
        Device(config, features, identity, keyring, state).run(stop)
    if threading.active_count() > 1:
        os._exit(stop.code)  # the worker is inside something that cannot be interrupted, such as torch's import
    sys.exit(stop.code)
