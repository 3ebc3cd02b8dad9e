"""What the log of one federation says, as dataclasses: how far the rounds are, and what came of them. Reads SQLite.

For a log that holds one lineage in one epoch, as a demo's does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from floe.messages import Task
from floe.sqlite import Database
from floe.terminal import printable


@dataclass(frozen=True)
class Scores:
    """A model on test rows, averaged over devices by their number; None: not measured, or without meaning."""

    loss: float | None = None
    accuracy: float | None = None
    roc_auc: float | None = None


@dataclass(frozen=True)
class PhaseRow:
    """One row of `rounds`. A phase that is void has ended, with every device refused."""

    round: int
    task: Task
    state: Literal["open", "closed", "void"]
    expected: tuple[str, ...]
    bytes_up: int
    bytes_down: int
    seconds: float

    @property
    def closed(self) -> bool:
        return self.state == "closed"


@dataclass(frozen=True)
class DeviceRow:
    """A device as it is now, and its newest update of the task train."""

    name: str
    state: str
    rows: int | None
    before: Scores
    after: Scores


@dataclass(frozen=True)
class Answer:
    """How an update of the newest phase ended."""

    device: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far a federation is. `phases` and `devices` in the order of their rounds and names."""

    phases: tuple[PhaseRow, ...] = ()
    devices: tuple[DeviceRow, ...] = ()
    answers: tuple[Answer, ...] = ()
    models: dict[int, Scores] = field(default_factory=dict)

    def closed(self, rounds: int, report: str) -> bool:
        """Whether every training round, and the last measurement, has closed."""
        done = {(phase.task, phase.round) for phase in self.phases if phase.closed}
        last: set[tuple[str, int]] = {("evaluate", rounds)} if report == "weights" else set()
        return {("train", number) for number in range(1, rounds + 1)} | last <= done

    def void(self) -> PhaseRow | None:
        """The first phase that came to nothing."""
        return next((phase for phase in self.phases if phase.state == "void"), None)

    def refused(self) -> list[Answer]:
        """The refusals of an open phase in which no device can be accepted any more; empty while one can."""
        if not self.phases or self.phases[-1].state != "open":
            return []
        rejected = {a.device: a for a in self.answers if a.outcome == "rejected"}
        accepted = {a.device for a in self.answers if a.outcome == "accepted"}
        hopeless = not accepted and set(self.phases[-1].expected) <= rejected.keys()
        return [rejected[device] for device in sorted(rejected)] if hopeless else []


@dataclass(frozen=True)
class RoundRow:
    """One line of the table at the end: the model that a round made, and what the round cost."""

    round: int
    devices: int
    scores: Scores
    bytes_up: int
    bytes_down: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What came of a federation whose rounds are closed. `model_sha256` is None where only accuracy was reported."""

    table: tuple[RoundRow, ...]
    updates_accepted: int
    model_sha256: str | None
    suites: tuple[str, ...]

    @property
    def final(self) -> Scores:
        """The last model as the devices measured it; without a global model, the devices' own after training."""
        return self.table[-1].scores

    @property
    def bytes_up(self) -> int:
        return sum(row.bytes_up for row in self.table)

    @property
    def bytes_down(self) -> int:
        return sum(row.bytes_down for row in self.table)


def progress(db: Database) -> Progress:
    """Where the federation is at this moment."""
    phases = tuple(_phase(row) for row in db.query("SELECT * FROM rounds ORDER BY opened_at, rowid"))
    answers = db.query(
        "SELECT device, outcome, reason, detail FROM updates WHERE (round, task) = "
        "(SELECT round, task FROM rounds ORDER BY opened_at DESC, rowid DESC LIMIT 1) ORDER BY id"
    )
    return Progress(
        phases,
        tuple(_device(row) for row in db.query(_DEVICES)),
        tuple(_answer(row) for row in answers),
        {row["round"]: _scores(row) for row in db.query("SELECT * FROM models WHERE loss IS NOT NULL")},
    )


def summary(db: Database) -> Summary:
    """What came of a federation whose rounds are closed."""
    phases = progress(db).phases
    numbers = sorted({phase.round for phase in phases})
    newest = next(iter(db.query("SELECT sha256 FROM models ORDER BY round DESC LIMIT 1")), None)
    accepted = db.execute("SELECT count(*) FROM updates WHERE task = 'train' AND outcome = 'accepted'").fetchone()[0]
    measured = {row["round"]: row for row in db.query(_MODELS if newest else _OWN)}
    table = tuple(_round(number, [p for p in phases if p.round == number], measured) for number in numbers)
    suites = tuple(suite for (suite,) in db.execute("SELECT DISTINCT suite FROM updates ORDER BY suite"))
    return Summary(table, accepted, newest["sha256"] if newest else None, suites)


def _phase(row: dict[str, Any]) -> PhaseRow:
    return PhaseRow(
        row["round"],
        row["task"],
        row["state"],
        tuple(json.loads(row["expected"])),
        row["bytes_up"],
        row["bytes_down"],
        row["seconds"] or 0.0,
    )


def _device(row: dict[str, Any]) -> DeviceRow:
    return DeviceRow(row["device"], row["state"], row["samples"], _scores(row, "base_"), _scores(row))


def _answer(row: dict[str, Any]) -> Answer:
    why = ": ".join(filter(None, (row["reason"], row["detail"])))
    return Answer(row["device"], row["outcome"], printable(why))


def _scores(row: dict[str, Any], prefix: str = "") -> Scores:
    return Scores(row[f"{prefix}loss"], row[f"{prefix}accuracy"], row[f"{prefix}roc_auc"])


def _round(number: int, phases: Sequence[PhaseRow], measured: dict[int, dict[str, Any]]) -> RoundRow:
    row = measured.get(number)
    return RoundRow(
        number,
        row["devices"] if row else 0,
        _scores(row) if row else Scores(),
        sum(phase.bytes_up for phase in phases),
        sum(phase.bytes_down for phase in phases),
        sum(phase.seconds for phase in phases),
    )


_DEVICES = """
SELECT d.device, d.state, u.samples, u.loss, u.accuracy, u.roc_auc, u.base_loss, u.base_accuracy, u.base_roc_auc
FROM devices d LEFT JOIN updates u ON u.id = (
    SELECT max(id) FROM updates WHERE device = d.device AND task = 'train' AND outcome = 'accepted'
) ORDER BY length(d.device), d.device
"""

_MODELS = "SELECT round, devices, loss, accuracy, roc_auc FROM models"

# Without a global model: the devices' own, after training, averaged as `models` is.
_OWN = """
SELECT round, count(*) AS devices, sum(loss * test_samples) / sum(test_samples) AS loss,
       sum(accuracy * test_samples) / sum(test_samples) AS accuracy,
       sum(roc_auc * test_samples) / sum(iif(roc_auc IS NULL, NULL, test_samples)) AS roc_auc
FROM updates WHERE task = 'train' AND outcome = 'accepted' AND test_samples > 0 GROUP BY round
"""
