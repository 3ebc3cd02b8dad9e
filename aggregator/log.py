"""The log: every write to floe.sqlite and updates.csv, and the reads that a restart needs.

A method that returns has its rows on disk; statuses and counts of refusals wait for the next `flush`, and those and
events may be gone after a power cut: nobody was promised them. Only the aggregator writes; whoever else wants to know
reads (`floe.store`).
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec

from aggregator import spending, statements
from aggregator.events import Events
from aggregator.refusals import Refusals
from aggregator.updates_csv import UpdatesCsv
from floe.messages import Phase, Status, Task
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.service import log
from floe.store import CSV, FILE, durably, now, open_log

NOTE_S = 5.0  # how long a round has been open is written so often
FLUSH_S = 1.0  # what is no promise is written no more often


@dataclass(frozen=True)
class Outcome:
    """How an update ended, as it stands in `updates`."""

    transfer: str
    device: str
    phase: Phase
    outcome: str
    reason: str
    detail: str


class Log(Events):
    """floe.sqlite and updates.csv in one folder.

    Raises `StoreError` when it cannot be opened, and `sqlite3.Error` when the disk refuses later: nothing was recorded.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(folder / FILE, open_log(folder / FILE), clock)
        self._csv = UpdatesCsv(folder / CSV)
        self._refusals = Refusals()
        self._statuses: dict[str, Status] = {}
        self._flush_at = 0.0
        self._phase: Phase | None = None
        self._opened, self._noted_at = clock(), 0.0
        if aside := self._csv.restore(self.db):
            self.event("error", "damaged", aside)

    def federation(self, federation: str, lineage: str, epoch: int, suite: str) -> None:
        """Record the chain of models that begins, or goes on."""
        row = {"federation": federation, "lineage": lineage, "epoch": epoch, "suite": suite, "created_at": now()}
        with durably(self.db):
            self._insert("federations", row)

    def renew(
        self, federation: str, lineage: str, epoch: int, suite: str, schema: str | None, model: dict[str, Any] | None
    ) -> None:
        """Record an epoch that goes on from what another has made."""
        row = {"federation": federation, "lineage": lineage, "epoch": epoch, "suite": suite, "created_at": now()}
        with durably(self.db):
            self._insert("federations", row | {"schema": schema})
            if model is not None:
                self._add_model(model)

    def known_epoch(self, lineage: str) -> int | None:
        """The newest epoch of a lineage in this log."""
        epoch = self._one("SELECT max(epoch) FROM federations WHERE lineage = ?", lineage)
        return None if epoch is None else int(epoch)

    def schema(self, lineage: str, epoch: int) -> str | None:
        return self._one("SELECT schema FROM federations WHERE lineage = ? AND epoch = ?", lineage, epoch)

    def set_schema(self, lineage: str, epoch: int, schema: str) -> None:
        with durably(self.db):
            self.db.execute(
                "UPDATE federations SET schema = ? WHERE lineage = ? AND epoch = ?", (schema, lineage, epoch)
            )

    def owners(self) -> list[tuple[str, str]]:
        """The federations and lineages that have written to this log."""
        return list(self.db.execute("SELECT DISTINCT federation, lineage FROM federations").fetchall())

    def pin(self, device: str, key: str) -> None:
        """Remember the first key that was seen for a device."""
        row = {"device": device, "key": key, "state": "unknown", "seq": 0, "first_seen": now(), "last_seen": now()}
        with durably(self.db):
            self._insert("devices", row)

    def enrolled(self, device: str, key: str, state: str) -> None:
        """A device's key and its place in the roster, in the caller's transaction; another key begins to count anew."""
        self._statuses.pop(device, None)
        moment = now()
        self.db.execute(statements.ENROLLED, {"device": device, "key": key, "state": state, "now": moment})

    def status(self, status: Status) -> bool:
        """Take note of a device's state; False for one that is older than what is known. The newest again is news to
        us: after a restart the retained status, known from before, is what says that the device is there.

        On disk with one of the next `flush`: a status is no promise, and a fleet says thousands at once.
        """
        newest = self._statuses.get(status.sender)
        seq = newest.seq if newest else self._one("SELECT seq FROM devices WHERE device = ?", status.sender)
        if seq is None or status.seq < int(seq):
            return False
        self._statuses[status.sender] = status
        return True

    def all_unknown(self) -> None:
        """At a start nobody is known to be there: retained statuses tell it anew. Sequences stay: no roll-back."""
        with self.db.atomic():
            self.db.execute(statements.UNKNOWN)

    def open_round(self, phase: Phase, base: str | None, plan: Plan, bar: str, expected: list[str]) -> None:
        """Record a round that opens; one that is there already stays as it is.

        Its seconds are those in which a process had it open, by a clock that nobody sets.
        """
        row = {
            **msgspec.structs.asdict(phase),
            "state": "open",
            "base_sha256": base,
            "plan": msgspec.json.encode(plan).decode(),
            "bar": bar,
            "expected": json.dumps(expected),
            "opened_at": now(),
        }
        with durably(self.db):
            self._insert("rounds", row)
        there = self.round(phase)
        self._phase, self._opened = phase, self._clock() - ((there and there["seconds"]) or 0.0)

    def open_phase(self, lineage: str, epoch: int) -> dict[str, Any] | None:
        """The round that was open when the process ended."""
        rows = self.db.query(
            "SELECT * FROM rounds WHERE lineage = ? AND epoch = ? AND state = 'open'", [lineage, epoch]
        )
        return next(iter(rows), None)

    def last_closed(self, lineage: str, epoch: int) -> Phase | None:
        """The newest phase that has closed."""
        order = " ".join(f"WHEN '{task}' THEN {place}" for place, task in enumerate(get_args(Task)))
        sql = (
            "SELECT round, task FROM rounds WHERE lineage = ? AND epoch = ? AND state != 'open' "  # noqa: S608
            f"ORDER BY round DESC, CASE task {order} END DESC LIMIT 1"
        )
        row = self.db.execute(sql, (lineage, epoch)).fetchone()
        return Phase(lineage, epoch, *row) if row else None

    def void_rounds(self, last: Phase) -> list[Phase]:
        """The training rounds of an epoch that came to nothing, up to this one."""
        sql = "SELECT round FROM rounds WHERE (lineage, epoch, task, state) = (?, ?, 'train', 'void') AND round <= ?"
        found = self.db.execute(sql, (last.lineage, last.epoch, last.round))
        return [Phase(last.lineage, last.epoch, number, "train") for (number,) in found]

    def last_round(self, lineage: str, epoch: int) -> int:
        """The highest round that has been opened, 0 if none has."""
        return int(self._one("SELECT max(round) FROM rounds WHERE lineage = ? AND epoch = ?", lineage, epoch) or 0)

    def newest_model(self, lineage: str, epoch: int) -> int:
        """The round of the newest global model, 0 if there is none."""
        return int(self._one("SELECT max(round) FROM models WHERE lineage = ? AND epoch = ?", lineage, epoch) or 0)

    def private_plans(self, lineage: str) -> list[tuple[str, int]]:
        """The plans (JSON) of closed rounds with noise for devices, in all epochs of a lineage, how many each."""
        where = "lineage = ? AND task = 'train' AND epsilon IS NOT NULL"
        sql = f"SELECT plan, count(*) FROM rounds WHERE {where} GROUP BY plan"  # noqa: S608 (words of ours)
        return list(self.db.execute(sql, [lineage]))

    def add_model(self, row: dict[str, Any]) -> None:
        """Record a model that no round made."""
        with durably(self.db):
            self._add_model(row)

    def close_round(
        self, phase: Phase, *, up: int, down: int, model: dict[str, Any] | None,
        weights: Mapping[str, float] | None = None, spent: Mapping[str, Any] | None = None,
        threshold: float | None = None,
    ) -> None:  # fmt: skip
        """Close a round, with the model that it made, the share of each transfer in it, what it and all before it have
        spent of devices' privacy, the threshold that was agreed in it, and the metrics of the models that its updates
        started from: all or nothing.
        """
        key = {**self._closing(phase), "up": up, "down": down, "threshold": threshold}
        with durably(self.db):
            self.db.execute(statements.CLOSE, key)
            if spent:
                self.db.execute(statements.SPENT_OF_DEVICES, {**key, **spent})
            if model is not None:
                self._add_model(model)
            for transfer, weight in (weights or {}).items():
                self.db.execute("UPDATE updates SET weight = ? WHERE transfer = ?", (weight, transfer))
            self.db.execute(statements.MEASURE, key)
            self.db.execute(statements.LOCAL, key)
            if threshold is not None:
                self.db.execute(statements.AGREED, key)

    def extend_round(self, phase: Phase, bar: str, expected: list[str]) -> None:
        """Record whom an open round expects now."""
        with durably(self.db):
            self.db.execute(
                "UPDATE rounds SET bar = ?, expected = ? WHERE lineage = ? AND epoch = ? AND round = ? AND task = ?",
                (bar, json.dumps(expected), phase.lineage, phase.epoch, phase.round, phase.task),
            )

    def void_round(self, phase: Phase, *, carried: bool = False) -> None:
        """Close a round that came to nothing. `carried`: the next one uses what it had accepted; otherwise nobody."""
        key = msgspec.structs.asdict(phase) | {"carried": carried}
        (first,) = self.db.execute(statements.FIRST, key).fetchone()
        with self._csv.amending(first, self.db), durably(self.db):
            self.db.execute(statements.PASS_ON, key)
            self.db.execute(
                statements.CLOSE.replace("'closed'", "'void'", 1),
                {**self._closing(phase), "up": 0, "down": 0},
            )

    def outcome(self, transfer: str) -> Outcome | None:
        """How a transfer ended, if it did."""
        for row in self.db.query("SELECT * FROM updates WHERE transfer = ?", [transfer]):
            phase = Phase(row["lineage"], row["epoch"], row["round"], row["task"])
            return Outcome(transfer, row["device"], phase, row["outcome"], row["reason"], row["detail"])
        return None

    def has_ended(self, device: str, phase: Phase) -> bool:
        """Whether an update of a device for a phase was accepted or rejected."""
        sql = (
            "SELECT 1 FROM updates WHERE lineage = ? AND epoch = ? AND round = ? AND task = ? "
            "AND outcome IN ('accepted', 'rejected') AND device = ?"
        )
        return self._one(sql, phase.lineage, phase.epoch, phase.round, phase.task, device) is not None

    def round(self, phase: Phase) -> dict[str, Any] | None:
        """A round that has been opened."""
        sql = "SELECT * FROM rounds WHERE lineage = ? AND epoch = ? AND round = ? AND task = ?"
        return next(iter(self.db.query(sql, [phase.lineage, phase.epoch, phase.round, phase.task])), None)

    def is_open(self, phase: Phase) -> bool:
        row = self.round(phase)
        return row is not None and row["state"] == "open"

    def base_of(self, phase: Phase) -> dict[str, Any] | None:
        """The row of the global model that a round started from."""
        sql = (
            "SELECT m.* FROM rounds r JOIN models m ON (m.lineage, m.epoch, m.sha256) = "
            "(r.lineage, r.epoch, r.base_sha256) WHERE r.lineage = ? AND r.epoch = ? AND r.round = ? AND r.task = ?"
        )
        return next(iter(self.db.query(sql, [phase.lineage, phase.epoch, phase.round, phase.task])), None)

    def models_between(self, made_in: Phase, used_in: Phase) -> int:
        """How many global models were made since the base of one round, up to that of another: the staleness.

        One at least, where an operator has put another model in the place of that base.
        """
        sql = "SELECT count(*) FROM models WHERE lineage = ? AND epoch = ? AND round >= ? AND round < ?"
        made = (made_in.lineage, made_in.epoch, made_in.round, used_in.round)
        if made_in == used_in:
            return 0
        bases = [row["base_sha256"] for phase in (made_in, used_in) if (row := self.round(phase))]
        return max(int(self.db.execute(sql, made).fetchone()[0]), len({*bases}) - 1)

    def merged(self, phase: Phase) -> list[dict[str, Any]]:
        """The accepted updates that a phase uses, those of earlier rounds included, in the order of their arrival."""
        return list(
            self.db.query(
                "SELECT * FROM updates WHERE lineage = ? AND epoch = ? AND merged = ? AND task = ? "
                "AND outcome = 'accepted' ORDER BY id",
                [phase.lineage, phase.epoch, phase.round, phase.task],
            )
        )

    def unused(self, lineage: str, epoch: int) -> list[dict[str, Any]]:
        """The accepted updates with weights that no closed round has used yet."""
        return list(self.db.query(statements.UNUSED, {"lineage": lineage, "epoch": epoch}))

    def histograms(self, phase: Phase) -> list[tuple[int, ...]]:
        """What the accepted updates of a phase count of their errors, in the order of device ids."""
        sql = (
            "SELECT histogram FROM updates WHERE lineage = ? AND epoch = ? AND merged = ? AND task = ? "
            "AND outcome = 'accepted' AND histogram IS NOT NULL ORDER BY device"
        )
        key = (phase.lineage, phase.epoch, phase.round, phase.task)
        return [tuple(json.loads(text)) for (text,) in self.db.execute(sql, key)]

    def threshold(self, lineage: str, epoch: int, made_in: int, sha256: str) -> float | None:
        """The threshold that was agreed last for a model that a round made; None: none was."""
        sql = (
            "SELECT threshold FROM rounds WHERE lineage = ? AND epoch = ? AND round >= ? AND base_sha256 = ? "
            "AND threshold IS NOT NULL ORDER BY round DESC LIMIT 1"
        )
        row = self.db.execute(sql, (lineage, epoch, made_in, sha256)).fetchone()
        return None if row is None else float(row[0])

    def ended(self, phase: Phase) -> list[dict[str, Any]]:
        """The updates of a phase that have ended, in the order of device ids."""
        return list(
            self.db.query(
                "SELECT * FROM updates WHERE lineage = ? AND epoch = ? AND round = ? AND task = ? ORDER BY device, id",
                [phase.lineage, phase.epoch, phase.round, phase.task],
            )
        )

    def update(
        self, ended: Outcome, report: Report | None, *, bytes_: int, sha256: str | None, suite: str,
        merged: int | None = None,
    ) -> None:  # fmt: skip
        """Record how an update ended; a second record for the same transfer changes nothing.

        `merged` is the round that uses it, of an accepted one; by default its own.
        """
        row = {
            "transfer": ended.transfer, "device": ended.device, **msgspec.structs.asdict(ended.phase),
            "outcome": ended.outcome, "reason": ended.reason, "detail": " ".join(ended.detail.split())[:500],
            **(_metrics(report) if report else {}), "bytes": bytes_, "sha256": sha256, "suite": suite, "time": now(),
            "merged": (ended.phase.round if merged is None else merged) if ended.outcome == "accepted" else None,
        }  # fmt: skip
        fallen = ""
        with durably(self.db):
            new = self._insert("updates", row)
            if new:
                self.db.execute(statements.SUMS, row)
            if ended.outcome == "accepted" and report is not None:
                self.db.execute(
                    "UPDATE devices SET threshold = coalesce(?, threshold), model_sha256 = coalesce(?, model_sha256) "
                    "WHERE device = ?",
                    (report.threshold, sha256, ended.device),
                )
            if new and ended.outcome == "accepted" and report is not None and report.privacy is not None:
                fallen = spending.note(self.db, row, report.privacy)
            if fallen:
                about = {"level": "warning", "kind": "privacy", "device": ended.device, "reason": "account-fell"}
                self._insert("events", {"time": row["time"], **about, "text": fallen[:1000]})
        if fallen:
            log(f"warning {fallen}")
        if new and not self._csv.append(row, self.db):
            self.complain(f"{self._csv.path} cannot be written; it is made anew from the database when it can")

    def lost(self, transfer: str, detail: str) -> None:
        """An accepted update whose file the disk has damaged before its round closed: it is not in the model."""
        (first,) = self.db.execute("SELECT min(id) FROM updates WHERE transfer = ?", [transfer]).fetchone()
        with self._csv.amending(first, self.db), self.db.atomic():
            self.db.execute(
                "UPDATE updates SET outcome = 'rejected', reason = 'storage', merged = NULL, detail = ? "
                "WHERE transfer = ?",
                (" ".join(detail.split())[:500], transfer),
            )
            self.db.execute(statements.SUMS_WITHOUT, [transfer])

    def refused(self, device: str | None, reason: str) -> None:
        """Count a refusal; names without a key are one."""
        self._refusals.count(device if device and self.key_of(device) else "", reason)

    def flush(self, moment: float) -> None:
        """Write statuses and counters, at most once a second. Raises `sqlite3.Error`: then they are written later."""
        due = self._phase is not None and moment >= self._noted_at + NOTE_S
        if moment < self._flush_at or not (self._statuses or self._refusals.new or due):
            return
        self._flush_at = moment + FLUSH_S
        with self.db.atomic():
            for s in self._statuses.values():
                task, round = (s.phase.task, s.phase.round) if s.phase else (None, None)
                self.db.execute(statements.STATUS, (s.state, s.seq, s.software, now(), task, round, s.sender))
            self._refusals.write(self.db)
            if due and self._phase is not None:
                seconds = {"seconds": self._clock() - self._opened}
                self.db.execute(statements.SPENT, msgspec.structs.asdict(self._phase) | seconds)
                self._noted_at = moment
        self._statuses.clear()
        self._refusals.new.clear()

    def close(self) -> None:
        try:
            self.flush(math.inf)
        except sqlite3.Error as error:
            self.complain(f"{self.path}: {error}; the last statuses and counts of refusals are lost")
        self.db.close()

    def _closing(self, phase: Phase) -> dict[str, Any]:
        return {**msgspec.structs.asdict(phase), "now": now(), "seconds": self._clock() - self._opened}

    def _add_model(self, row: dict[str, Any]) -> None:
        self.db.table("models").insert({**row, "created_at": now()}, replace=True)

    def _insert(self, table: str, row: dict[str, Any]) -> bool:
        """Whether it was new."""
        columns, places = ", ".join(row), ", ".join("?" * len(row))
        sql = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})"  # noqa: S608 (names of ours)
        return self.db.execute(sql, tuple(row.values())).rowcount == 1

    def _one(self, sql: str, *parameters: str | int) -> str | None:
        row = self.db.execute(sql, parameters).fetchone()
        return None if row is None or row[0] is None else str(row[0])


def _metrics(report: Report) -> dict[str, Any]:
    after, before = report.after, report.before
    return {
        "samples": report.samples, "test_samples": report.test_samples, "train_loss": report.train_loss,
        "threshold": report.threshold, "seconds": report.seconds,
        "histogram": json.dumps(report.histogram) if report.histogram else None,
        **(msgspec.structs.asdict(report.privacy) if report.privacy else {}),
        **{name: getattr(after, name) for name in Metrics.__struct_fields__ if after is not None},
        **{f"base_{name}": getattr(before, name) for name in Metrics.__struct_fields__ if before is not None},
    }  # fmt: skip
