"""`floe ui`: serves the page until it is stopped. Streamlit runs in this process; the page itself is entry/app.py."""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path

import click

from floe.cli import config_options
from floe.errors import ConfigError
from floe.settings import Config
from ui.password import check_form, hashed
from ui.serving import serve_for

APP = Path(__file__).with_name("entry") / "app.py"
# Nothing of Streamlit's own that talks to the outside, watches files, or shows its insides to a reader.
OPTIONS = {
    "browser_gatherUsageStats": False,
    "client_showErrorDetails": "none",
    "client_toolbarMode": "minimal",
    "global_developmentMode": False,
    "logger_hideWelcomeMessage": True,
    "logger_level": "error",
    "server_fileWatcherType": "none",
    "server_headless": True,
    "server_maxUploadSize": 1,
    "server_runOnSave": False,
}


@click.command()
@config_options(bind="ui.bind", port="ui.port")
@click.option("--new-password", is_flag=True, help="ask for a password and print its line for [ui] of floe.toml")
def ui(config: Config, new_password: bool) -> None:
    """Serve the page: watch the federation, and steer it where an operator's key lies here.

    It reads the log of the aggregator, so it runs on the aggregator's machine. Whoever may see it from elsewhere needs
    the password of [ui]; without TLS before it (a reverse proxy, ssh -L) others on the way can read along.
    """
    if new_password:
        asked = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
        click.echo(f'password = "{hashed(asked)}"')
        return
    _check_access(config)
    port = _free_port(config)
    try:
        from streamlit import config as options
        from streamlit.web import bootstrap
    except ImportError:
        raise ConfigError(f"the page needs Streamlit: {sys.executable} -m pip install 'floe[ui]'") from None
    serve_for(config)
    given = {**OPTIONS, "server_address": config.ui.bind, "server_port": port}
    for name, value in given.items():
        options.set_option(name.replace("_", ".", 1), value)
    click.echo(f"the page: http://{_shown(config.ui.bind)}:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    bootstrap.run(str(APP), False, [], given)


def _check_access(config: Config) -> None:
    if config.ui.password:
        check_form(config.ui.password)
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


def _free_port(config: Config) -> int:
    """The port to serve at. Raises `ConfigError` for an address that is not here, or one that is taken."""
    address, port = config.ui.bind, config.ui.port
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ConfigError(
            f"the page cannot be served at {address}:{port} ({error.strerror or error}): choose another with --port, "
            "or --bind"
        ) from None


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address
