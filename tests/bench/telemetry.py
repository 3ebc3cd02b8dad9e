"""What watching costs the aggregator: `python tests/bench/telemetry.py` (half a minute).

A log that holds all that is kept of 5,000 devices; then every device reports at the same moment, with no lines of its
own log, with 4, and with 100 (of 60 characters). For each: CPU seconds to take the reports in (without signatures and
ciphers), CPU seconds of all writes, the longest write, how many writes it took, and the lines that found no place.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.wire import ANN, keyring  # noqa: E402 (the path comes first)

from aggregator.kept import KEPT  # noqa: E402 (the path comes first)
from aggregator.log import Log  # noqa: E402 (the path comes first)
from aggregator.monitor import Monitor  # noqa: E402 (the path comes first)
from aggregator.phases import Policy  # noqa: E402 (the path comes first)
from aggregator.pins import Pins  # noqa: E402 (the path comes first)
from aggregator.states import State  # noqa: E402 (the path comes first)
from floe.messages import Manifest, Phase  # noqa: E402 (the path comes first)
from floe.parcel import seal_meta  # noqa: E402 (the path comes first)
from floe.plan import Plan  # noqa: E402 (the path comes first)
from floe.settings import Rounds  # noqa: E402 (the path comes first)
from floe.telemetry import Line, Telemetry  # noqa: E402 (the path comes first)
from floe.topics import DeviceTelemetry  # noqa: E402 (the path comes first)
from floe.vitals import Sampler  # noqa: E402 (the path comes first)

DEVICES = 5000
TEXT = "train 3: loss 0.4213 after epoch 2 of 5, 1,200 rows a second"
PHASE = Phase("main", 1, 3, "train")
RING = keyring("plaintext")
NAMES = [f"device-{number:05}" for number in range(DEVICES)]


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder))
        _fill(log)
        monitor = Monitor(
            log, Pins(log, RING), RING, Policy(Rounds(), Plan()), Sampler(Path(folder)), state=lambda: State(PHASE),
            uploads=lambda: [], model=lambda: None, plan=lambda: "{}",
        )  # fmt: skip
        moment = 1000.0
        print("lines  hear_s  write_s  longest_s  writes  lines_lost")
        for seq, count in enumerate((0, 0, 4, 100), 1):  # the first is the start of a process
            moment = _measure(log, monitor, moment, seq, count)
        log.close()


def _fill(log: Log) -> None:
    with log.db.atomic() as db:
        for name in NAMES:
            log._insert("devices", _device(name))
        vitals = ((name, "2026-01-01T00:00:00.000Z") for _ in range(KEPT["vitals"]) for name in NAMES)
        db.conn.executemany("INSERT INTO vitals (member, time, cpu_percent) VALUES (?, ?, 1)", vitals)
        columns = [row[1] for row in db.execute("PRAGMA table_info(journal)")][1:]
        row = {"time": "2026-01-01T00:00:00.000Z", "said_at": "2026-01-01T00:00:00.000Z", "level": "info", "text": TEXT}
        lines = ([row.get(column, name) for column in columns] for _ in range(KEPT["journal"]) for name in NAMES)
        places = ", ".join("?" * len(columns))
        db.conn.executemany(f"INSERT INTO journal ({', '.join(columns)}) VALUES ({places})", lines)


def _device(name: str) -> dict[str, Any]:
    return {"device": name, "key": ANN.key, "state": "idle", "seq": 0, "first_seen": "", "last_seen": ""}


def _measure(log: Log, monitor: Monitor, moment: float, seq: int, count: int) -> float:
    told = msgspec.json.encode(
        Telemetry(cpu_percent=20.0, memory_percent=31.5, lines=tuple(Line(1.0, "info", TEXT) for _ in range(count)))
    ).decode()
    said = [(DeviceTelemetry("floe", name, "main"), _manifest(name, seq, told)) for name in NAMES]
    before, begun = _rows(log), time.process_time()
    for topic, manifest in said:
        monitor.hear(topic, manifest)
    heard = time.process_time() - begun
    took = []
    while True:
        moment += 1.0
        begun = time.process_time()
        monitor.tick(moment)
        took.append(time.process_time() - begun)
        if not monitor._heard:
            break
    written = _rows(log) - before
    lost = DEVICES * count - written
    print(f"{count:5}  {heard:6.2f}  {sum(took):7.2f}  {max(took):9.2f}  {len(took):6}  {lost:10}", flush=True)
    return moment


def _manifest(name: str, seq: int, told: str) -> Manifest:
    core, key = seal_meta(told, RING, federation="floe", phase=PHASE, kind="telemetry", sender=name, base="")
    envelope = RING.envelope(core, key, "main")
    return Manifest(
        federation="floe", sender=name, key=ANN.key, proof="", seq=seq, core=core, envelope=envelope
    )  # fmt: skip


def _rows(log: Log) -> int:
    """The newest line's id: of all that were written, those that are gone again included."""
    return int(log.db.execute("SELECT max(id) FROM journal").fetchone()[0])


if __name__ == "__main__":
    main()
