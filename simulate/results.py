"""One line of JSON for every training round, and one of text: from the log, and a measurement of the global model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aggregator.log import Log
from floe.errors import DataError, StoreError
from floe.messages import Phase
from floe.report import Metrics

NONE: dict[str, None] = dict.fromkeys(Metrics.__struct_fields__)


class Results:
    """The file of `--results`, one line per round, or none. Raises `StoreError`, `DataError` for another's file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rounds: dict[str, dict[str, Any]] = {}
        if path is not None:
            self._read(path)

    def has(self, sha256: str, round_: int) -> bool:
        """Whether a round has its line, for this model."""
        return self.rounds.get(str(round_), {}).get("sha256") == sha256

    def add(self, record: dict[str, Any]) -> None:
        """One more line."""
        self.rounds[str(record["round"])] = record
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise StoreError(f"--results {self._path}: cannot be written: {error.strerror}") from None

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]  # a line that a kill cut off is written again
            if whole != text:
                path.write_text(whole, encoding="utf-8")
            records = [json.loads(line) for line in whole.splitlines()]
            self.rounds = {str(record["round"]): record for record in records}
        except OSError as error:
            raise StoreError(f"--results {path}: cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise DataError(f"--results {path}: holds something else than results; choose another file") from None


def record_of(log: Log, phase: Phase, metrics: Metrics | None) -> dict[str, Any] | None:
    """What is told of a training round that has closed; None of one without updates."""
    row = log.round(phase)
    used = [update for update in log.ended(phase) if update["outcome"] == "accepted"]
    if row is None or row["state"] != "closed" or not used:
        return None
    models = log.db.query(
        "SELECT sha256 FROM models WHERE (lineage, epoch, round) = (?, ?, ?)", [phase.lineage, phase.epoch, phase.round]
    )
    sha256 = next((model["sha256"] for model in models), None)
    measured: Mapping[str, Any] = NONE if metrics is None else msgspec.structs.asdict(metrics)
    return {
        "round": phase.round, "sha256": sha256, **measured, "devices": [update["device"] for update in used],
        "samples": sum(update["samples"] for update in used), "bytes_up": row["bytes_up"],
        "bytes_down": row["bytes_down"], "seconds": round(row["seconds"], 3),
    }  # fmt: skip


def words(record: Mapping[str, Any]) -> str:
    """The line of a round in the terminal."""
    parts = [f"round {record['round']}: {len(record['devices'])} devices"]
    if record["loss"] is not None:
        parts += [f"loss {record['loss']:.4f}", f"accuracy {record['accuracy']:.4f}"]
    return ", ".join([*parts, f"{record['seconds']:.1f} s"])
