"""`floe broker`: Mosquitto in the foreground. Touches the terminal and this process's signals."""

from __future__ import annotations

import signal
import sys
import threading

import click

from broker.render import is_loopback
from broker.run import Mosquitto, start
from floe.cli import config_options
from floe.errors import BrokerError
from floe.settings import Config

_POLL_S = 0.2


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
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with start(config, config.path(config.paths.state) / "broker", log_to_stderr=True) as running:
        _tell(config, running)
        while not stop.wait(_POLL_S):
            if running.exit_code() is not None:
                raise BrokerError(f"mosquitto ended with code {running.exit_code()}; see its messages above")


def _tell(config: Config, running: Mosquitto) -> None:
    username = config.mqtt.username
    login = f"login {username}" if username else "no login"
    flags = f' -u {username} -P "$FLOE_MQTT_PASSWORD"' if username else ""
    scope = "this machine only" if is_loopback(config.broker.bind) else "reachable from other machines"
    print(f"broker   {config.broker.bind}:{config.mqtt.port} ({login}, {scope})")
    print(f"files    {running.folder}")
    print(f"watch    mosquitto_sub -h {running.host} -p {running.port}{flags} -v -t 'floe/{config.federation.name}/#'")
    sys.stdout.flush()
