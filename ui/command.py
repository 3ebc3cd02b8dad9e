"""`floe ui`: serves the page until it is stopped. Streamlit runs in this process; the page itself is entry/app.py."""

from __future__ import annotations

import ipaddress
import socket
import sys

import click

from floe.cli import config_options
from floe.errors import ConfigError
from floe.settings import Config
from ui.password import check_form, hashed
from ui.serving import serve_for

MISSING = f"the page needs Streamlit: {sys.executable} -m pip install 'floe[ui]'"
LOCAL = ("localhost", "127.0.0.1", "::1")


@click.command()
@config_options(bind="ui.bind", port="ui.port")
@click.option("--new-password", is_flag=True, help="ask for a password and print its line for [ui] of floe.toml")
def ui(config: Config, new_password: bool) -> None:
    """Serve the page: watch the federation, and steer it where an operator's key lies here.

    It reads the log of the aggregator, so it runs on the aggregator's machine. Whoever may see it from elsewhere needs
    the password of [ui]; without TLS before it (a reverse proxy, ssh -L) others on the way can read along.
    """
    if new_password:
        click.echo(f'password = "{hashed(_asked())}"')
        return
    check_access(config)
    try:
        from ui.server import serve
    except ImportError:
        raise ConfigError(MISSING) from None
    serve_for(config)
    with _listening(config) as listening:
        address, port = listening.getsockname()[:2]
        # Without a password only this machine may ask, by its own names; with one, by whatever name a proxy gives it.
        hosts = () if config.ui.password else (*LOCAL, config.ui.bind.lower(), address)
        code = serve(listening, hosts, lambda: _tell(address, port))
    sys.exit(code)


def _tell(address: str, port: int) -> None:
    shown = f"[{address}]" if ":" in address else address
    click.echo(f"the page: http://{shown}:{port} (Ctrl-C ends it)")
    sys.stdout.flush()


def _asked() -> str:
    """A password that was typed twice, or one line of stdin. Raises `ConfigError` for none."""
    if sys.stdin is not None and sys.stdin.isatty():
        given = str(click.prompt("password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        given = sys.stdin.readline().rstrip("\r\n") if sys.stdin is not None else ""
    if not given:
        raise ConfigError("--new-password: no password was given: type one, or write it as a line to stdin")
    return given


def check_access(config: Config) -> None:
    """Who can reach the page, and whether that needs a password. Raises `ConfigError`."""
    if config.ui.password:
        check_form(config.ui.password)
        if config.file is not None and config.file.stat().st_mode & 0o004:
            note = f"note: others on this machine can read {config.file}, and guess at the password: chmod o-r"
            click.echo(f"{note} {config.file}", err=True)
    elif not _is_loopback(config.ui.bind):
        raise ConfigError(
            f"[ui] bind = {config.ui.bind!r} shows the page to others, so it needs a password: "
            "`floe ui --new-password` makes the line for [ui] of floe.toml"
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _listening(config: Config) -> socket.socket:
    """A socket of the page's address. Raises `ConfigError` for an address that is not here, or one that is taken."""
    address, port = config.ui.bind, config.ui.port
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen()
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none, for the IDNA codec
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the page cannot be served at {address}:{port} ({why}): choose another with --port, or --bind"
        ) from None
    return listening
