"""Every global model made again, from the record of the aggregator and the journals of the devices.

As PROTOCOL.md, 5.1 and 5.4, say it, in numpy alone: nothing of Floe computes here.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from chaos.judge import Journal, Made, read_weights, sha256, weights_file

Row = dict[str, Any]
Weights = dict[str, npt.NDArray[Any]]
POWER = 0.5  # rounds.staleness_power


@dataclass(frozen=True)
class Count:
    """What is wrong, in words; the rounds that made a model, and those of them with updates of earlier rounds."""

    wrong: list[str]
    models: list[int]
    merging: list[int]
    void: list[int]
    missing: list[Made]


def recount(folder: Path, *, mixing: float = 0.0) -> Count:
    """Look at a federation's folder in which all rounds are over. `mixing`: of asynchronous operation.

    `missing` are updates that were made, and that no model has.
    """
    record = _Record(folder)
    used = [row for row in record.updates if row["outcome"] == "accepted"]
    made = {(one.device, one.round): one for one in record.journal.made()}
    wrong = [f"accepted {n} times: {what}" for what, n in Counter(_key(row) for row in used).items() if n > 1]
    for row in used:
        if _key(row) not in made or made[_key(row)].sha256 != row["sha256"]:
            wrong.append(f"accepted, and not what was made: {_key(row)}")
        if row["merged"] not in record.models:
            wrong.append(f"accepted, and in no model: {_key(row)}, in that of round {row['merged']}")
    numbers = sorted(record.models)
    for before, number in pairwise(numbers):
        rows = [row for row in used if row["merged"] == number]
        again = record.mixed(before, rows, mixing) if mixing else record.mean(before, rows)
        found = (sha256(again), sha256((folder / "models" / record.models[number]["file"]).read_bytes()))
        if set(found) != {record.models[number]["sha256"]}:
            wrong.append(f"model {number} is not what {[_key(row) for row in rows]} make")
        if mixing and len(rows) != 1:
            wrong.append(f"model {number} is made of {len(rows)} updates")
    merging = sorted({row["merged"] for row in used if row["merged"] != row["round"]})
    missing = [made[key] for key in sorted(made.keys() - {_key(row) for row in used})]
    return Count(wrong, numbers[1:], merging, record.void, missing)


class _Record:
    """floe.sqlite, the files of the models, the journal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.journal = Journal(folder / "journal")
        with closing(sqlite3.connect(f"file:{folder / 'log' / 'floe.sqlite'}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            self.updates = _rows(db, "SELECT * FROM updates WHERE task = 'train' ORDER BY id")
            self.models = {row["round"]: row for row in _rows(db, "SELECT * FROM models")}
            rounds = _rows(db, "SELECT * FROM rounds WHERE task = 'train'")
        self._bases = {row["round"]: row["base_sha256"] for row in rounds}
        self.void = sorted(row["round"] for row in rounds if row["state"] == "void")

    def mean(self, before: int, rows: list[Row]) -> bytes:
        """The mean of the updates, the late ones moved to the base, by device, of one the oldest first."""
        base, schema = self._model(self.models[before]["sha256"])
        rows = sorted(rows, key=lambda row: (row["device"], row["round"]))
        updates = [self._moved(base, row) for row in rows]
        total = float(sum(row["samples"] for row in rows))
        mean = {}
        for name, array in base.items():
            summed = np.zeros(array.shape, np.float64)
            for row, update in zip(rows, updates, strict=True):
                summed += update[name].astype(np.float64) * row["samples"]
            mean[name] = (summed / total).astype(array.dtype)
        return weights_file(mean, schema)

    def mixed(self, before: int, rows: list[Row], mixing: float) -> bytes:
        """The updates mixed into the model before, in the order in which they were accepted."""
        mixed, schema = self._model(self.models[before]["sha256"])
        for row in rows:
            share, update = mixing * (1 + self._behind(row)) ** -POWER, self._update(row)
            mixed = {
                name: (array.astype(np.float64) * (1 - share) + update[name].astype(np.float64) * share).astype(
                    array.dtype
                )
                for name, array in mixed.items()
            }
        return weights_file(mixed, schema)

    def _moved(self, base: Weights, row: Row) -> Weights:
        update, behind = self._update(row), self._behind(row)
        if not behind:
            return update
        own, factor = self._model(self._bases[row["round"]])[0], (1 + behind) ** -POWER
        return {
            name: (
                array.astype(np.float64)
                + update[name].astype(np.float64) * factor
                + own[name].astype(np.float64) * -factor
            ).astype(array.dtype)
            for name, array in base.items()
        }

    def _behind(self, row: Row) -> int:
        """How many models were made since the one that an update started from."""
        return sum(row["round"] <= number < row["merged"] for number in self.models)

    def _update(self, row: Row) -> Weights:
        return read_weights((self.journal.folder / row["sha256"]).read_bytes())[0]

    def _model(self, sha256_: str) -> tuple[Weights, str]:
        row = next(row for row in self.models.values() if row["sha256"] == sha256_)
        return read_weights((self._folder / "models" / row["file"]).read_bytes())


def _key(row: Row) -> tuple[str, int]:
    return row["device"], row["round"]


def _rows(db: sqlite3.Connection, sql: str) -> list[Row]:
    return [dict(row) for row in db.execute(sql)]
