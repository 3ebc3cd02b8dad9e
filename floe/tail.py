"""`floe tail`: what travels over the broker, checked and in words. Listens; publishes nothing, keeps nothing.

Bytes from the wire are shown with everything that could steer a terminal escaped.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from floe.anchor import read_anchor
from floe.asker import load_asker
from floe.cli import config_options
from floe.papers import entrance
from floe.service import log, stopping
from floe.session import Connected, Disconnected, Received, Session
from floe.settings import Config
from floe.terminal import printable
from floe.watch import Line, Watch

POLL_S = 0.25


@click.command()
@config_options(host="mqtt.host", port="mqtt.port", username="mqtt.username", federation="federation.name")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
def tail(config: Config, as_json: bool) -> None:
    """Print every message of a federation, its signature checked; chunks are counted, one line for each transfer.

    What is sealed stays sealed: this needs no key. Signatures are checked against the key that each message names; that
    key is held against the roster where federation.pub lies here, and else against the first that was seen for a name.
    Where members log in each as itself, it is the operator whose key lies here, and hears what that one may.
    """
    federation = config.federation.name
    anchor = read_anchor(config.path(config.security.federation))
    client_id = f"floe-tail-{os.urandom(4).hex()}"
    login = "" if config.mqtt.login == "shared" else f"operator.{load_asker(config).identity.name}"
    session = Session(config.mqtt, client_id, [f"floe/{federation}/#"], None, entrance(config, login))
    with stopping() as stop:
        try:
            session.connect(stop, log)
            _listen(session, Watch(federation, anchor), _json if as_json else _text, stop)
        finally:
            session.close()
    sys.exit(stop.code)


def _listen(session: Session, watch: Watch, show: Callable[[Line], str], stop: Callable[[], bool]) -> None:
    while not stop():
        lines: list[Line] = []
        match session.next(POLL_S):
            case Received() as received:
                lines = watch.message(received, time.monotonic())
                session.ack(received)
            case Connected():
                log("connected")
            case Disconnected(reason):
                log(f"connection lost: {reason}; trying again")
        for line in [*lines, *watch.tick(time.monotonic())]:
            print(show(line), flush=True)


def _text(line: Line) -> str:
    moment = time.strftime("%H:%M:%S")
    mark = f" [{line.signature}]" if line.signature else ""
    return printable(f"{moment} {line.topic}  {line.kind} {line.sender}: {line.text}{mark}")


def _json(line: Line) -> str:
    fields: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "topic": line.topic,
        "type": line.kind,
        "sender": line.sender,
        "text": line.text,
        "signature": line.signature,
        "retained": line.retained,
        "bytes": line.bytes,
    }
    return json.dumps(fields)
