"""Many simulated devices against a real broker and a real aggregator: how long a round takes, what it uses."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import folder as bench_folder
from bench.federation import PATIENCE_S, Stopped, environment, hands, listen
from bench.folder import Settings
from bench.listener import Listener
from bench.usage import cpu_seconds, only_child, peak_bytes
from floe.children import Child, Children, await_port, free_port
from floe.errors import IncompleteError
from floe.store import FILE, read_log
from floe.transfer import chunk_bytes_for, chunk_count

A_PROCESS = 250  # devices in one process at the most
ROUNDS = """
SELECT r.round, r.accepted, m.sha256 FROM rounds r JOIN models m USING (lineage, epoch, round)
WHERE r.task = 'train' AND r.state = 'closed' ORDER BY r.round
"""


@dataclass(frozen=True)
class Fleet:
    """What was observed: rows of the rounds; peaks in bytes; processor seconds of the whole run."""

    rounds: list[dict[str, Any]]
    aggregator_peak: int
    aggregator_cpu_s: float
    broker_peak: int
    broker_cpu_s: float


def run(settings: Settings, stopped: Stopped) -> Fleet:
    """Run the rounds. Raises `IncompleteError`, or the error of a process that ended."""
    size = bench_folder.model_bytes(settings)
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as name:
        folder, port = Path(name), free_port()
        bench_folder.make(folder, settings, port)
        with Children(folder, environment()) as children:
            broker = children.start("broker", "broker")
            await_port(broker, port, stopped)
            listener = Listener(port, chunk_count(size, chunk_bytes_for(size)), updates=False)
            listener.connect(stopped)
            aggregator = children.start("aggregator", "aggregator")
            for first, count in shares(settings.clients, os.cpu_count() or 1):
                children.start(f"devices-{first}", str(port), str(first), str(count), module="bench.devices")
            meter = _Meter(listener, aggregator, settings.rounds)
            listen(listener, children, stopped, PATIENCE_S + settings.clients, meter.turn)
            mosquitto = only_child(broker.process.pid)
            used = [(peak_bytes(pid), cpu_seconds(pid)) for pid in (aggregator.process.pid, mosquitto)]
        return Fleet(_rows(folder, listener, meter), *used[0], *used[1])


def shares(devices: int, cores: int) -> list[tuple[int, int]]:
    """First number and count of the devices of each process: one a core at least, each with `A_PROCESS` at the most."""
    processes = min(max(-(-devices // A_PROCESS), cores), devices)
    bounds = [devices * i // processes for i in range(processes + 1)]
    return [(first + 1, last - first) for first, last in pairwise(bounds)]


class _Meter:
    """Reads the aggregator's processor time and memory when a round has been opened, and when the last has a model."""

    def __init__(self, listener: Listener, aggregator: Child, last: int) -> None:
        self._last = last
        self._listener = listener
        self._pid = aggregator.process.pid
        self.read: list[tuple[float, int]] = []

    def turn(self) -> None:
        rounds = self._listener.rounds
        over = self._last in rounds and bool(rounds[self._last].model)
        while len(self.read) < sum(bool(seen.opened) for seen in rounds.values()) + over:
            self.read.append((cpu_seconds(self._pid), peak_bytes(self._pid)))


def _rows(folder: Path, listener: Listener, meter: _Meter) -> list[dict[str, Any]]:
    there = hands(folder)
    with closing(read_log(folder / "log" / FILE).conn) as connection:
        recorded = connection.execute(ROUNDS).fetchall()
    found = []
    for number, accepted, sha256 in recorded:
        opened, made = listener.rounds[number].opened, listener.rounds[number].model
        if not (opened and made and there[number]):
            raise IncompleteError(f"round {number} was not seen whole")
        found.append({
            "round": number, "accepted": accepted, "in_hands": len(there[number]), "sha256": sha256,
            "close_seconds": made[0] - opened[0], "seconds": max(there[number]) - opened[0],
            "aggregator_cpu_seconds": meter.read[number][0] - meter.read[number - 1][0],
            "aggregator_peak_mb": meter.read[number][1] / 1e6,
        })  # fmt: skip
    return found
