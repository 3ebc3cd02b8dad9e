"""A log of a large federation: `python tests/bench/big_log.py FOLDER --devices 5000 --rounds 1000`.

Every row of rounds, updates, models, devices and events is written by `aggregator.log.Log`, as the aggregator does it;
vitals, journal and what stands about the rounds by `aggregator.monitor` where that is, and else by the same columns.
Only three things differ: ten rounds are one transaction without syncing, there is no updates.csv, and the clock is ours
(a round takes 90 s of the log's time, and the last one ends now). The same seed gives the same log but for those times.

In a round 2 of 100 updates are refused or late; 1 of 50 devices has been away for long, 1 of 200 was just lost; twenty
say things that terminals, HTML and Markdown would obey. A folder with a log of an earlier run is gone on with.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import click

from aggregator import log as log_module
from aggregator.log import Log, Outcome
from floe import service, store
from floe.messages import Phase, Status
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.selection import EVERYBODY
from floe.sqlite import Database
from floe.store import FILE

LINEAGE, SUITE = "main", "chacha20-poly1305"
ROUND_S = 90.0
AT_ONCE = 10  # rounds in a transaction
VITALS_KEPT, LINES_KEPT = 200, 500
HOSTILE = (
    "<script>alert(1)</script>", "**bold** [here](javascript:alert(1))", "\x1b[2J\x1b[31mgone", "=cmd|' /C calc'!A0",
    "a | b | c", "$x^2$ :red[red] :material/home:", "\u202egnp.exe", "'; DROP TABLE updates; --",
    "\r\nerror forged line", "x" * 400,
)  # fmt: skip


class Clock:
    """The log's time: monotonic seconds from `began`, which is so long ago that the last round ends now."""

    def __init__(self, began: datetime) -> None:
        self._began = began
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self, shift: float = 0.0) -> str:
        """As `floe.store.now`, so many seconds later."""
        moment = self._began + timedelta(seconds=self.seconds + shift)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class NoCsv:
    """In the place of updates.csv."""

    def restore(self, db: Database) -> str:
        return ""

    def append(self, row: dict[str, Any], db: Database) -> bool:
        return True


@contextmanager
def joined(db: Database) -> Iterator[None]:
    """In the place of `durably`: the block belongs to the transaction of its round."""
    yield


@contextmanager
def replaced(function: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
    """The aggregator's modules that have imported a function have another one."""
    with ExitStack() as stack:
        for module in [found for name, found in sys.modules.items() if name.startswith("aggregator.")]:
            if vars(module).get(function.__name__) is function:
                stack.enter_context(mock.patch.object(module, function.__name__, other))
        yield


@contextmanager
def fast_log(folder: Path, clock: Clock) -> Iterator[Log]:
    """A log as the aggregator's, but for what the top of this file says."""
    with (
        mock.patch.object(log_module, "UpdatesCsv", return_value=NoCsv()),
        replaced(store.durably, joined),
        replaced(store.now, clock.now),
        replaced(service.log, lambda text: None),
        closing(Log(folder, clock)) as log,
    ):
        log.db.execute("PRAGMA synchronous=OFF")
        log.db.execute("PRAGMA cache_size=-1000000")
        log.db.execute("PRAGMA wal_autocheckpoint=50000")
        gc.disable()  # a quarter of the time, and there are no cycles
        try:
            yield log
        finally:
            gc.enable()


class BigLog:
    """Writes the rounds of `devices` devices."""

    def __init__(self, log: Log, clock: Clock, devices: int, seed: int) -> None:
        self._log, self._clock, self._seed = log, clock, seed
        self._names = [f"device-{number:05}" for number in range(1, devices + 1)]
        self._hostile = set(self._names[:: max(devices // 20, 1)][:20])
        self._away = set(self._names[7::50])
        self._expected = [name for name in self._names if name not in self._away]
        self._plan = Plan(epochs=2)

    def found(self) -> None:
        """The federation, its devices and its first model."""
        with self._log.db.atomic():
            self._log.federation("floe", LINEAGE, 1, SUITE)
            for name in self._names:
                self._log.pin(name, _hash("key", name))
                self._say(name, "offline" if name in self._away else "online", None, 1)
            self._log.flush(self._clock() + 10)
            self._log.add_model(self._model(0))

    def round(self, number: int) -> None:
        """One round with an update of everybody who is there."""
        phase, chance = Phase(LINEAGE, 1, number, "train"), random.Random(self._seed * 1_000_003 + number)
        self._log.open_round(phase, _hash("model", number - 1), self._plan, EVERYBODY, self._expected)
        self._log.event("info", "opened", f"train {number} with {len(self._expected)} devices")
        for place, name in enumerate(self._expected):
            self._clock.seconds += ROUND_S / len(self._expected) * 0.9
            self._ended(phase, name, chance, number - place / len(self._expected))
        self._log.flush(self._clock() + 10)
        size = 33_344 * len(self._expected)
        samples = {row["transfer"]: row["samples"] for row in self._log.merged(phase)}
        total = sum(samples.values())
        shares = {transfer: count / total for transfer, count in samples.items()}
        self._log.close_round(phase, up=size, down=size, model=self._model(number), weights=shares)
        self._log.event("info", "closed", f"train {number} closed with {len(self._expected)} updates")
        self._clock.seconds = number * ROUND_S

    def _ended(self, phase: Phase, name: str, chance: random.Random, learned: float) -> None:
        after, before = _metrics(learned, chance), _metrics(learned - 1, chance)
        luck, transfer = chance.random(), _hash(name, phase.round)
        outcome, reason, detail = "accepted", "", ""
        if luck < 0.02:
            outcome, reason = ("late", "late") if luck < 0.008 else ("rejected", "device")
            detail = chance.choice(HOSTILE) if name in self._hostile else "too few rows for an epoch"
        report = Report(
            samples=chance.randint(200, 4000), test_samples=chance.randint(50, 900), before=before, after=after,
            train_loss=after.loss, threshold=after.loss / 2, seconds=chance.uniform(2, 60),
        )  # fmt: skip
        ended = Outcome(transfer, name, phase, outcome, reason, detail)
        sha256 = _hash("update", transfer) if outcome == "accepted" else None
        self._log.update(ended, report, bytes_=33_344, sha256=sha256, suite=SUITE)
        self._say(name, "offline" if luck > 0.995 else "idle", phase, phase.round + 1)
        what = f"{name}: train {phase.round} {outcome}"
        text, level = (f"{what}: {reason}: {detail}", "warning") if reason else (what, "info")
        self._log.event(level, outcome, text, device=name, reason=reason or None)

    def _say(self, name: str, state: Any, phase: Phase | None, seq: int) -> None:
        about = {"federation": "floe", "sender": name, "key": "", "proof": "", "seq": seq}
        software = HOSTILE[0] if name in self._hostile else "floe 0.5.0"
        self._log.status(Status(**about, state=state, phase=phase, software=software))

    def _model(self, number: int) -> dict[str, Any]:
        return {
            "lineage": LINEAGE, "epoch": 1, "round": number, "sha256": _hash("model", number),
            "file": f"global/{number}.safetensors", "bytes": 33_344, "devices": len(self._expected) if number else 1,
            "samples": 2100 * len(self._expected), "signature": "",
        }  # fmt: skip

    def watch(self, rounds: int) -> None:
        """What is kept of how devices are and what they say, and where the rounds stand, as of the last round."""
        chance = random.Random(self._seed)
        with self._log.db.atomic() as db:
            for table in ("vitals", "journal"):
                db.execute(f"DELETE FROM {table}")
            for back in range(VITALS_KEPT, 0, -1):
                moment = self._clock.now(-60 * back)
                for name in [*self._names, f"lineage/{LINEAGE}"]:
                    _insert(db, "vitals", self._vitals(name, moment, back, chance))
            for back in range(LINES_KEPT, 0, -1):
                moment = self._clock.now(-25 * back)
                for name in self._names:
                    _insert(db, "journal", self._line(name, moment, chance))
            db.execute(NEWEST_VITALS)
            _insert(db, "standing", self._standing(rounds))
            for topic, value in (("clients/connected", len(self._expected)), ("messages/received", 10**9)):
                _insert(db, "broker", {"topic": f"$SYS/broker/{topic}", "value": str(value), "time": self._clock.now()})
        self._log.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _vitals(self, name: str, moment: str, back: int, chance: random.Random) -> dict[str, Any]:
        return {
            "member": name, "time": moment, "cpu_percent": round(chance.uniform(2, 99), 1),
            "memory_percent": round(chance.uniform(20, 95), 1), "process_bytes": chance.randint(60, 400) * 10**6,
            "disk_percent": 41.5, "disk_free_bytes": 17 * 10**9, "sent_bytes_s": 900.0, "received_bytes_s": 1400.0,
            "temperature_c": None if name.endswith("3") else round(chance.uniform(35, 85), 1),
            "uptime_s": 90_000.0 - back * 60, "retries": chance.randint(0, 3), "model_sha256": None,
        }  # fmt: skip

    def _line(self, name: str, moment: str, chance: random.Random) -> dict[str, Any]:
        level = chance.choices(("info", "warning", "error"), (96, 3, 1))[0]
        text = chance.choice(HOSTILE) if name in self._hostile else "train: loss 0.4213 after epoch 2"
        return {"time": moment, "said_at": moment, "device": name, "level": level, "text": text}

    def _standing(self, rounds: int) -> dict[str, Any]:
        return {
            "lineage": LINEAGE, "epoch": 1, "round": rounds, "task": "train", "stage": "finished", "held": "",
            "last": rounds, "online": len(self._expected), "needed": 0, "quorum": len(self._expected),
            "plan": "{}", "deadline_at": None, "changed_at": self._clock.now(), "seen_at": self._clock.now(),
        }  # fmt: skip


NEWEST_VITALS = "UPDATE devices SET vitals = (SELECT max(id) FROM vitals v WHERE v.member = devices.device)"


def _insert(db: Any, table: str, row: dict[str, Any]) -> None:
    places = ", ".join("?" * len(row))
    db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))


def _metrics(learned: float, chance: random.Random) -> Metrics:
    share = max(min(0.95 - 0.45 / (1 + learned / 20) + chance.uniform(-0.04, 0.04), 1.0), 0.0)
    return Metrics(loss=2 * (1 - share), accuracy=share, roc_auc=min(share + 0.02, 1.0))


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def make(folder: Path, devices: int, rounds: int, seed: int = 1, *, tell: Any = None) -> Path:
    """Write the log of so many devices and rounds, or go on with one; where it is. `tell` is called with progress."""
    clock = Clock(datetime.now(UTC) - timedelta(seconds=rounds * ROUND_S))
    with fast_log(folder, clock) as log:
        big = BigLog(log, clock, devices, seed)
        done = log.last_round(LINEAGE, 1)
        clock.seconds = done * ROUND_S
        if not log.owners():
            big.found()
        for first in range(done + 1, rounds + 1, AT_ONCE):
            with log.db.atomic():
                for number in range(first, min(first + AT_ONCE, rounds + 1)):
                    big.round(number)
            if tell:
                tell(number)
        big.watch(rounds)
    return folder / FILE


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--devices", type=click.IntRange(2), default=5000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(folder: Path, devices: int, rounds: int, seed: int) -> None:
    began = told = time.monotonic()

    def tell(number: int) -> None:
        nonlocal told
        if time.monotonic() - told > 10:
            told = time.monotonic()
            click.echo(f"{told - began:.0f} s: round {number} of {rounds}", err=True)

    path = make(folder, devices, rounds, seed, tell=tell)
    about = {"devices": devices, "rounds": rounds, "seconds": round(time.monotonic() - began, 1)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    click.echo(json.dumps({**about, "bytes": path.stat().st_size, "peak_mb": peak}))


if __name__ == "__main__":
    main()
