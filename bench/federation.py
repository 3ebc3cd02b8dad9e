"""A federation that trains nothing, run to its end: every part a process of its own, by the normal command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench import folder as bench_folder
from bench.folder import Settings
from bench.listener import Listener, Seen
from bench.trainer import FOLDER
from bench.usage import peak_bytes
from floe.children import Child, Children, await_port, free_port
from floe.errors import BrokerError, IncompleteError
from floe.store import FILE, read_log
from floe.transfer import chunk_bytes_for, chunk_count

PATIENCE_S = 120.0
Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Run:
    """What was observed. `hands`: by round, when each client had its model; bytes by round; peaks in bytes."""

    rounds: dict[int, Seen]
    hands: dict[int, list[float]]
    up: dict[int, int]
    down: dict[int, int]
    aggregator_peak: int
    client_peak: int
    raw_seconds: float | None


def run(settings: Settings, stopped: Stopped, *, raw: bool = False) -> Run:
    """Run the rounds; if `raw`, measure paho through the same broker first.

    Raises `IncompleteError`, or the error of a process that ended.
    """
    size = bench_folder.model_bytes(settings)
    chunks = chunk_count(size, chunk_bytes_for(size))
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as name:
        folder, port = Path(name), free_port()
        bench_folder.make(folder, settings, port)
        with Children(folder, environment()) as children:
            broker = children.start("broker", "broker")
            await_port(broker, port, stopped)
            seconds = _raw(port, chunks, chunk_bytes_for(size)) if raw else None
            listener = Listener(port, chunks)
            listener.connect(stopped)
            aggregator = children.start("aggregator", "aggregator")
            clients = [_client(children, number) for number in range(1, settings.clients + 1)]
            listen(listener, children, stopped, PATIENCE_S)
            peaks = [peak_bytes(child.process.pid) for child in (aggregator, *clients)]
        up, down = _bytes(folder)
        return Run(listener.rounds, hands(folder), up, down, peaks[0], max(peaks[1:]), seconds)


def _client(children: Children, number: int) -> Child:
    name = f"client-{number}"
    return children.start(name, "client", "--id", name, "--data", "features")


def environment() -> dict[str, str]:
    """Of the processes of a benchmark: nothing of ours configures them, and numpy takes one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOE_")}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def listen(
    listener: Listener, children: Children, stopped: Stopped, patience_s: float, turn: Callable[[], None] | None = None
) -> None:
    """Until the last round is over; `turn` is called again and again. Raises `IncompleteError`, or a child's error."""

    def over() -> bool:
        if turn:
            turn()
        return stopped() or children.ended() is not None

    heard = listener.listen(over, patience_s)
    if turn:
        turn()
    listener.close()
    if listener.finished:
        return
    if (ended := children.ended()) is not None:
        raise ended.fault()
    raise IncompleteError("stopped before the last round" if heard else f"nothing was heard for {patience_s:g} s")


def _raw(port: int, chunks: int, size: int) -> float:
    def start(what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench.raw", what, str(port), str(chunks), str(size)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start("receive") as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()  # it has subscribed
        with start("send") as sender:
            began, ended = sender.communicate()[0], receiver.communicate()[0]
    if sender.returncode or receiver.returncode:
        raise BrokerError("the raw rate could not be measured; see the messages above")
    return float(ended) - float(began)


def hands(folder: Path) -> dict[int, list[float]]:
    """By round, when each client had its model."""
    found: dict[int, list[float]] = defaultdict(list)
    for path in (folder / FOLDER).glob("*.txt"):
        for line in path.read_text().splitlines():
            model, moment = line.split()
            found[int(model)].append(float(moment))
    return found


def _bytes(folder: Path) -> tuple[dict[int, int], dict[int, int]]:
    with closing(read_log(folder / "log" / FILE).conn) as connection:
        rows = connection.execute("SELECT round, bytes_up, bytes_down FROM rounds WHERE task = 'train'").fetchall()
    return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}
