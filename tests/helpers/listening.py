"""A stranger with mosquitto_sub, and what it has heard."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.federation import Federation


@contextmanager
def listening(federation: Federation, out: Path) -> Iterator[None]:
    """`mosquitto_sub -v -t 'floe/#'`, payloads in hexadecimal so that a chunk cannot end a line."""
    with out.open("wb") as file:
        command = ["mosquitto_sub", "-p", str(federation.port), "-t", "floe/#", "-F", "%t %x"]
        process = subprocess.Popen(command, stdout=file)
    time.sleep(0.3)
    try:
        yield
        time.sleep(0.3)
    finally:
        process.terminate()
        process.wait()


def heard(out: Path) -> list[tuple[str, bytes]]:
    lines = [line.split(" ") for line in out.read_text().splitlines()]
    return [(topic, bytes.fromhex(payload)) for topic, payload in lines]
