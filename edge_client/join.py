"""`floe join`: a device's way into a federation. Makes keys, federation.pub and floe.toml, then asks (`joining`)."""

from __future__ import annotations

import json
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_client.asked import Asked, keep_asked, kept_asked
from edge_client.entrance import LOST, is_on_card, papers_of
from edge_client.joining import Joining
from edge_client.membership import Membership
from floe import qr
from floe.anchor import check_witness, load_anchor, read_anchor, write_anchor
from floe.cli import config_options
from floe.config import FILE, load, variable
from floe.errors import ConfigError, KeyFileError
from floe.files import write_atomically
from floe.joincode import JoinCode, read_code
from floe.names import fault_of
from floe.own_keys import load_keys
from floe.roster import Anchor
from floe.service import log, only_one, stopping
from floe.settings import Config


@click.command()
@config_options(id="device.id")
@click.argument("code", required=False)
@click.option("--image", type=click.Path(path_type=Path), metavar="FILE", help="read the code from a PNG or JPEG")
@click.option("--rsa", is_flag=True, help="sign with RSA-2048-PSS instead of Ed25519")
@click.option("--no-wait", is_flag=True, help="end when the aggregator has answered; run it again to see what became")
def join(config: Config, code: str | None, image: Path | None, rsa: bool, no_wait: bool) -> None:
    """Ask to be let in, with the CODE of `floe invite`; shows the number that an operator compares.

    Run it again, without a code, to go on after an interruption.
    """
    if code is not None and image is not None:
        raise ConfigError("--image: give a code or a picture of one, not both")
    text = qr.read(image) if image is not None else code
    given = None if text is None else read_code(text)
    if given is None and read_anchor(config.path(config.security.federation)) is None:
        raise ConfigError("which federation? give the code that `floe invite` prints, or --image FILE with its picture")
    name = _name(config, given)
    state = config.path(config.paths.state) / f"device-{name}"
    if given is not None:
        config = _agreed(config, given, name, state)
    with stopping() as stop, only_one(state, "device"):
        anchor = load_anchor(config, state)
        assert anchor is not None
        keys = load_keys(state, name, "rsa-2048-pss" if rsa else config.security.signatures)
        lineage = config.rounds.lineage
        membership = Membership(state, anchor, name, lineage, keys.sealing)
        asked = kept_asked(state)
        papers, is_member = papers_of(state, name), membership.is_approved(keys.identity.key)
        if given is None and is_member and is_on_card(papers, membership, config.mqtt):
            click.echo(f"{name} is a member already; next: {_client(config, name)}")
            return
        if given is None and is_member and asked is None:
            raise KeyFileError(LOST.format(papers.folder, name))
        asked = _asked(state, given, asked, keys.identity.key)
        joining = Joining(config, keys, membership, asked, state)
        if joining.run(stop, wait=not no_wait):
            click.echo(f"{name} is a member of {anchor.federation!r}; next: {_client(config, name)}")
    sys.exit(stop.code)


def _name(config: Config, given: JoinCode | None) -> str:
    invited = given.device if given else ""
    name = config.device.id or invited
    login = given.login if given else config.mqtt.login
    if fault := fault_of(name, certificate=login == "certificates"):
        place = f"--id {name!r}" if name else "which device is this? --id NAME"
        raise ConfigError(f"{place}: {fault}")
    if invited and name != invited:
        raise ConfigError(
            f"the code is for device {invited!r}, this one is {name!r} ([device] id): join with --id {invited}, or ask "
            f"for a code for {name!r}"
        )
    return name


def _agreed(config: Config, code: JoinCode, name: str, state: Path) -> Config:
    """The configuration as the code wants it; it and federation.pub are written where there is none.

    Raises `ConfigError`, `KeyFileError` where something differs: then nothing has been written.
    """
    if code.expires < time.time():
        ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(code.expires))
        log(f"warning: by this clock the code expired at {ended}; the aggregator decides")
    written = {} if config.file is None else tomllib.loads(config.file.read_text(encoding="utf-8"))
    wrong = [
        f"[{section}] {key} = {_toml_value(wanted)} ({_now(written, section, key, there)})"
        for section, key, there, wanted in (
            ("federation", "name", config.federation.name, code.federation),
            ("mqtt", "host", config.mqtt.host, code.host),
            ("mqtt", "port", config.mqtt.port, code.port),
            ("mqtt", "tls", config.mqtt.tls, code.tls),
            ("mqtt", "login", config.mqtt.login, code.login),
            ("mqtt", "lobby_port", config.mqtt.lobby_port, _lobby_port(code)),
            ("rounds", "lineage", config.rounds.lineage, code.lineage),
        )
        if there != wanted and (config.file or variable(section, key) in os.environ)
    ]
    if wrong:
        place = f"{config.file}: " if config.file else ""
        raise ConfigError(f"{place}the code is for another place; if you want to go there, set {'; '.join(wrong)}")
    path, anchor = config.path(config.security.federation), Anchor(code.federation, code.root)
    if read_anchor(path) in (None, anchor):
        check_witness(path, state, anchor)
    write_anchor(path, anchor)
    if config.file is None:
        write_atomically(config.folder / FILE, _toml(code, name).encode())
        config = load({"device.id": ("--id", name)}, file=config.folder / FILE)
        log(f"{config.file} written")
    return msgspec.structs.replace(config, device=msgspec.structs.replace(config.device, id=name))


def _asked(state: Path, code: JoinCode | None, before: Asked | None, key: str) -> Asked:
    """What is asked for: with another code, or other keys, anew; otherwise as before."""
    if code is None:
        if before is None:
            raise KeyFileError(f"{state}: nothing has been asked from here; give the code that `floe invite` prints")
        return before
    if before is None or (before.token, before.key) != (code.token, key):
        before = Asked.fresh(code, key)
        keep_asked(state, before)
    return before


def _client(config: Config, name: str) -> str:
    """How the device is started next."""
    words = ["floe client"]
    words += [] if _has_id(config) else [f"--id {name}"]
    words += [] if config.device.data else ["--data FOLDER"]
    return " ".join(words)


def _has_id(config: Config) -> bool:
    return config.file is not None and bool(load(environ={}, file=config.file).device.id)


def _now(written: dict[str, Any], section: str, key: str, there: str | int) -> str:
    """What a key is, and who says so."""
    name, value = variable(section, key), _toml_value(there)
    if name in os.environ:
        return f"now {value}, by {name}"
    return f"now {value}" if key in written.get(section, {}) else f"not set; by itself {value}"


def _lobby_port(code: JoinCode) -> int:
    return 0 if code.lobby_port == code.port else code.lobby_port


def _toml_value(value: str | int) -> str:
    return json.dumps(value)


def _toml(code: JoinCode, name: str) -> str:
    access = f"tls = {_toml_value(code.tls)}\nlobby_port = {_lobby_port(code)}\nlogin = {_toml_value(code.login)}\n"
    return (
        "# Written by `floe join`; `floe init --print` shows all that can be set.\n"
        f'[federation]\nname = "{code.federation}"\n\n[mqtt]\nhost = "{code.host}"\nport = {code.port}\n{access}\n'
        f'[rounds]\nlineage = "{code.lineage}"\n\n[device]\nid = "{name}"\n'
    )
