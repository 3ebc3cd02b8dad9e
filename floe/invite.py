"""`floe invite`: a code that lets one device ask to be let in, as text, in the terminal as a QR code, as a picture."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from floe import qr
from floe.cli import Numbers, reply_option, to_aggregator
from floe.errors import ConfigError
from floe.joincode import JoinCode, write_code
from floe.managing import Managing, managing
from floe.names import fault_of
from floe.settings import Config

TOKEN_BYTES = 16


@click.command()
@to_aggregator
@click.option("--device", "devices", multiple=True, metavar="NAME", help="for this device only; may be given again")
@click.option("--hours", type=Numbers(0.01, 8760), default=24.0, show_default=True, metavar="H",
              help="how long it can be used")  # fmt: skip
@click.option("--png", type=click.Path(path_type=Path), metavar="FILE", help="save the QR code; several: FILE-NAME")
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="save the QR code; several: FILE-NAME")
@click.option("--qr", "always_qr", is_flag=True, help="draw the QR code also where stdout is no terminal")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a code")
@reply_option
def invite(
    config: Config, devices: Sequence[str], hours: float, png: Path | None, svg: Path | None, always_qr: bool,
    as_json: bool, reply_s: float,
) -> None:  # fmt: skip
    """Make a code for one device, which `floe join` takes there. It holds no secret of the federation.

    Whoever uses it first may ask; an operator compares the number before anybody is let in.
    """
    for name in devices:
        if fault := fault_of(name, certificate=config.mqtt.login == "certificates"):
            raise ConfigError(f"--device {name!r}: {fault}")
    names = list(dict.fromkeys(devices)) or [""]
    pictures = _pictures(names, png, svg)
    expires = int(time.time() + hours * 3600)
    with managing(config, reply_s) as held:
        for name in names:
            code = _invited(held, config, name, expires)
            text = write_code(code)
            for path in pictures[name]:
                qr.save(text, path)
            if as_json:
                click.echo(json.dumps({"device": name, "code": text, "expires": expires}))
            else:
                _show(code, text, pictures[name], draw=always_qr or sys.stdout.isatty())
    if _is_here_only(config.mqtt.host):
        click.echo(
            f"note: the code says that the broker is at {config.mqtt.host}, so only this machine can use it; for "
            "others set [mqtt] host to an address that they reach",
            err=True,
        )


def _invited(held: Managing, config: Config, name: str, expires: int) -> JoinCode:
    token = secrets.token_bytes(TOKEN_BYTES)
    lineage, mqtt = config.rounds.lineage, config.mqtt
    held.ask("invite", token=hashlib.sha256(token).hexdigest(), name=name, until=expires)
    newest = held.newest()
    return JoinCode(
        federation=held.federation, lineage=lineage, device=name, root=held.known.anchor.root,
        sealing=newest.aggregator(lineage).sealing, token=token.hex(), expires=expires, version=newest.version,
        host=mqtt.host, port=mqtt.port, lobby_port=mqtt.lobby_port or mqtt.port, tls=mqtt.tls, login=mqtt.login,
    )  # fmt: skip


def _show(code: JoinCode, text: str, pictures: Sequence[Path], *, draw: bool) -> None:
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(code.expires))
    click.echo(f"for {code.device or 'one device'}, until {until}; there: floe join CODE", err=True)
    if draw:
        click.echo(qr.in_terminal(text))
    click.echo(text)
    for path in pictures:
        click.echo(f"{path} written", err=True)


def _pictures(names: Sequence[str], *files: Path | None) -> dict[str, list[Path]]:
    """Where the picture of each name's code goes. Raises `ConfigError` for a wrong ending."""
    found: dict[str, list[Path]] = {name: [] for name in names}
    for file, ending in zip(files, (".png", ".svg"), strict=True):
        if file is None:
            continue
        if file.suffix.lower() != ending:
            raise ConfigError(f"--{ending[1:]} {file}: let the name end in {ending}")
        for name in names:
            found[name].append(file if len(names) == 1 else file.with_name(f"{file.stem}-{name}{file.suffix}"))
    return found


def _is_here_only(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
