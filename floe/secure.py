"""How members log in at the broker: floe.toml, the authority, what the fixed logins have. Writes files.

The authority's key stays where `new` was run, in [security] access: there certificates are made and renewed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from floe.certificates import AUTHORITY, AUTHORITY_KEY, new_authority
from floe.config import FILE, load
from floe.errors import ConfigError, KeyFileError
from floe.files import write_atomically
from floe.identity import check_folder, present, write_private
from floe.next_authority import authority_here
from floe.papers import BROKER, HASHES, SERVER, Papers, renew_server, server_names
from floe.settings import Config, Mqtt
from floe.topics import NAME

PORT, LOBBY_PORT = 8883, 8884
LOGIN = rf"broker|(operator|lineage)\.{NAME}"


def settle(config: Config) -> Config:
    """The configuration with the ways to log in that it asks for: written where there is no floe.toml.

    Raises `ConfigError` with the lines to add where there is one without them.
    """
    mqtt = config.mqtt
    if mqtt.login == "shared":
        return config
    wanted = {
        "port": mqtt.port if mqtt.port != Mqtt().port else PORT, "tls": True,
        "lobby_port": mqtt.lobby_port or LOBBY_PORT, "login": mqtt.login,
    }  # fmt: skip
    lines = "\n".join(f"{key} = {_toml(value)}" for key, value in wanted.items())
    if config.file is None:
        path = config.folder / FILE
        write_atomically(path, _written(config, lines).encode())
        click.echo(f"{path} written")
        return load(file=path)
    if load(file=config.file).mqtt.login != mqtt.login or not (mqtt.tls and mqtt.lobby_port):
        raise ConfigError(f"{config.file}: members shall log in by {mqtt.login}: add this to its [mqtt]:\n{lines}")
    return config


def furnish(config: Config, operator: str, now: float) -> str:
    """Make the authority, and what broker, aggregator and operator log in with, all that is missing; the authority.

    In PEM; "" where [mqtt] tls is not set. Raises `KeyFileError`, `StoreError`, `ConfigError`.
    """
    mqtt, folder = config.mqtt, config.path(config.security.access)
    if not mqtt.tls:
        return ""
    check_folder(folder)
    authority = authority_here(folder) or new_authority(folder, config.federation.name, now)
    renew_server(folder, server_names(mqtt.host, config.broker.bind), now)
    for login in (BROKER, f"lineage.{config.rounds.lineage}", f"operator.{operator}"):
        _make(Papers(folder, login), mqtt, now)
    return authority.pem


def carry(config: Config, login: str, target: Path, names: Sequence[str], now: float) -> list[Path]:
    """Make what `login` gets in with on another machine, in a folder to carry there; its files.

    `names`: addresses of a broker. Raises `ConfigError`, `KeyFileError`, `StoreError`.
    """
    mqtt, folder = config.mqtt, config.path(config.security.access)
    if not re.fullmatch(LOGIN, login):
        raise ConfigError(f"{login}: allowed is broker, operator.NAME or lineage.NAME")
    if not mqtt.tls or mqtt.login == "shared":
        raise ConfigError(f"[mqtt] login = {mqtt.login!r}, tls = {_toml(mqtt.tls)}: nobody logs in as {login} there")
    if authority_here(folder) is None:
        raise KeyFileError(f"{folder / AUTHORITY_KEY}: missing: run this where `floe federation new` was run")
    if present(target) and any(target.iterdir()):
        raise ConfigError(f"--to {target}: not empty; choose another folder")
    source, files = Papers(folder, login), [folder / AUTHORITY]
    _make(source, mqtt, now)
    files += [source.password] if mqtt.login == "passwords" else [source.key, source.certificate]
    if login == BROKER:
        renew_server(folder, [*names, *server_names(mqtt.host, config.broker.bind)], now)
        server = Papers(folder, SERVER)
        files += [server.key, server.certificate]
        files += [folder / HASHES] if mqtt.login == "passwords" else []
    for file in files:
        write_private(target / file.name, file.read_bytes())
    return [target / file.name for file in files]


def _make(papers: Papers, mqtt: Mqtt, now: float) -> None:
    if mqtt.login == "certificates":
        papers.renew(now)
    elif mqtt.login == "passwords":
        papers.hash()


def _written(config: Config, lines: str) -> str:
    mqtt, here = config.mqtt, Mqtt().host
    bind = "" if mqtt.host in (here, "localhost") else '[broker]\nbind = "0.0.0.0"\n\n'
    return (
        "# Written by `floe federation new`; `floe init --print` shows all that can be set.\n"
        f"[federation]\nname = {_toml(config.federation.name)}\n\n[mqtt]\nhost = {_toml(mqtt.host)}\n{lines}\n\n"
        f"{bind}[rounds]\nlineage = {_toml(config.rounds.lineage)}\n"
    )


def _toml(value: str | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else f'"{value}"'
