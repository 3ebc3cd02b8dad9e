"""One line of JSON for every training round, and one of text: from the log, and a measurement of the global model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from floe.errors import DataError, StoreError
from floe.files import check_place
from floe.messages import Phase
from floe.report import Metrics
from floe.terminal import printable

BEGINNING = '{"epoch": '  # of every line
NONE: dict[str, None] = dict.fromkeys(Metrics.__struct_fields__)


class Results:
    """The lines of `--results`, one per round; without a file, those of this process."""

    def __init__(self, path: Path | None) -> None:
        """Reads what an earlier run has written. Raises `StoreError`; `ConfigError` and `DataError` for what is not
        such a file.
        """
        self._path = path
        self._rounds: dict[tuple[int, int], dict[str, Any]] = {}
        if path is not None:
            self._read(path)

    def of(self, phase: Phase, sha256: str | None) -> dict[str, Any] | None:
        """The line of a round, which made this model, if it has one. Raises `DataError` if it made another."""
        record = self._rounds.get((phase.epoch, phase.round))
        if record is not None and record["sha256"] != sha256:
            raise DataError(f"--results {self._path}: its round {phase.round} is of another run; choose another file")
        return record

    def add(self, record: dict[str, Any]) -> None:
        """One more line. Raises `StoreError`."""
        self._rounds[record["epoch"], record["round"]] = record
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise StoreError(f"--results {self._path}: cannot be written: {error.strerror}") from None

    def _read(self, path: Path) -> None:
        check_place(path, "--results")
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            records = [json.loads(line) for line in whole.splitlines()]
            self._rounds = {(record["epoch"], record["round"]): record for record in records}
            if not text.startswith(BEGINNING[: len(text)]):
                raise ValueError
            if whole != text:  # a line that a kill cut off is written again
                path.write_text(whole, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"--results {path}: cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise DataError(f"--results {path}: holds something else than results; choose another file") from None


def record_of(
    row: Mapping[str, Any], used: Sequence[Mapping[str, Any]], sha256: str | None, metrics: Metrics | None
) -> dict[str, Any]:
    """What is told of a training round: its row in the log, the updates that it used, the model that it made."""
    measured: Mapping[str, Any] = NONE if metrics is None else msgspec.structs.asdict(metrics)
    return {
        "epoch": row["epoch"], "round": row["round"], "sha256": sha256, **measured,
        "devices": sorted(update["device"] for update in used), "samples": sum(update["samples"] for update in used),
        "bytes_up": row["bytes_up"], "bytes_down": row["bytes_down"], "seconds": round(row["seconds"], 3),
    }  # fmt: skip


def void_words(phase: Phase, ended: Sequence[Mapping[str, Any]], fault: str) -> str:
    """The line of a phase that came to nothing, with its first refusal: its updates, and what is wrong with them."""
    accepted = sum(update["outcome"] == "accepted" for update in ended)
    refused = [f"; {update['device']}: {update['detail']}" for update in ended if update["detail"]]
    why = fault or f"{accepted} of {len(ended)} updates accepted, below the quorum{''.join(refused[:1])}"
    return printable(f"{phase.task.replace('train', 'round')} {phase.round}: void, {why}")


def words(record: Mapping[str, Any]) -> str:
    """The line of a round in the terminal."""
    parts = [f"round {record['round']}: {len(record['devices'])} devices"]
    if record["loss"] is not None:
        parts += [f"loss {record['loss']:.4f}", f"accuracy {record['accuracy']:.4f}"]
    return ", ".join([*parts, f"{record['seconds']:.1f} s"])
