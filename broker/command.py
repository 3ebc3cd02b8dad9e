"""`floe broker`: Mosquitto in the foreground. Touches the terminal and this process's signals."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import closing

import click

from broker.follow import Access
from broker.render import check, is_loopback
from broker.run import Mosquitto, start
from floe.cli import config_options
from floe.errors import BrokerError
from floe.settings import Config


@click.command()
@config_options(
    port="mqtt.port",
    bind="broker.bind",
    username="mqtt.username",
    federation="federation.name",
    max_payload_mb="broker.max_payload_mb",
    mosquitto="broker.mosquitto",
    state="paths.state",
)
def broker(config: Config) -> None:
    """Run Mosquitto, configured for Floe, until Ctrl-C.

    A login that all share is set with --username and FLOE_MQTT_PASSWORD; without one only this machine may connect.
    With [mqtt] login = "certificates" or "passwords" it follows the roster: each member gets in as itself.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    folder = config.path(config.paths.state) / "broker"
    check(config)
    access = Access(config, folder)
    while not stop.is_set():
        access.renew(again=access.has_other_authority)
        with (
            start(config, folder, members=access.members(), tls=access.files, log_to_stderr=True) as running,
            closing(access),
        ):
            _tell(config, running)
            while not (stop.is_set() or access.has_other_authority):
                access.follow(running, stop.is_set)
                if running.exit_code() is not None:
                    raise BrokerError(f"mosquitto ended with code {running.exit_code()}; see its messages above")


def _tell(config: Config, running: Mosquitto) -> None:
    mqtt, username = config.mqtt, config.mqtt.username
    login = f"login {username}" if username else "no login"
    if mqtt.login != "shared":
        login = f"TLS, {mqtt.login}, lobby {mqtt.lobby_port}" if mqtt.tls else mqtt.login
    flags = f' -u {username} -P "$FLOE_MQTT_PASSWORD"' if username else ""
    scope = "this machine only" if is_loopback(config.broker.bind) else "reachable from other machines"
    print(f"broker   {config.broker.bind}:{config.mqtt.port} ({login}, {scope})")
    print(f"files    {running.folder}")
    if mqtt.login != "shared" or mqtt.tls:
        print("watch    floe tail")
    else:
        print(
            f"watch    mosquitto_sub -h {running.host} -p {running.port}{flags} -v -t 'floe/{config.federation.name}/#'"
        )
    sys.stdout.flush()
