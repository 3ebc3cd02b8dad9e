"""The judge of a chaos run. It stands outside Floe and imports nothing of it: what devices made is in its own journal.

Each journaled update must have exactly one outcome in floe.sqlite, with the hash that the judge's own writer gave it;
each global model must be what numpy makes of the journal. `judge` returns what is wrong, in words; an empty list is
an acquittal.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
CODES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


def weights_file(arrays: Arrays, schema: str) -> bytes:
    """The file of an update or a model, as PROTOCOL.md, section 8, says it."""
    head: dict[str, Any] = {"__metadata__": {"schema": schema}}
    data = b""
    for name, array in sorted(arrays.items()):
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        head[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def read_weights(content: bytes) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """Arrays and schema of such a file."""
    start = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:start])
    schema = head.pop("__metadata__")["schema"]
    names = {code: np.dtype(name).newbyteorder("<") for name, code in CODES.items()}
    found = {}
    for name, entry in head.items():
        begin, end = entry["data_offsets"]
        found[name] = np.frombuffer(content[start + begin : start + end], names[entry["dtype"]]).reshape(entry["shape"])
    return found, schema


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Made:
    """One update, as its device made it: a line of the journal."""

    device: str
    round: int
    sha256: str
    samples: int


class Journal:
    """A folder: `journal.jsonl`, a line for each update that was made, and beside it the update itself by its hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = folder / "journal.jsonl"

    def add(self, device: str, round_: int, samples: int, arrays: Arrays, schema: str) -> None:
        """On disk when this returns. Called by the devices, several at a time."""
        content = weights_file(arrays, schema)
        line = {"device": device, "round": round_, "sha256": sha256(content), "samples": samples}
        part = self.folder / f"{device}.part"
        part.write_bytes(content)
        part.replace(self.folder / sha256(content))
        descriptor = os.open(self.lines, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, json.dumps(line).encode() + b"\n")
        os.fsync(descriptor)
        os.close(descriptor)

    def made(self) -> list[Made]:
        """Every update once: a device that was killed may have made it again, to the last bit."""
        lines = self.lines.read_text().splitlines() if self.lines.exists() else []
        return list(dict.fromkeys(Made(**json.loads(line)) for line in lines))


@dataclass(frozen=True)
class Judgement:
    """`wrong` in words; how many updates were made, accepted, ended otherwise; how many models were made again."""

    wrong: list[str]
    made: int
    accepted: int
    otherwise: int
    models: int


def judge(journal: Journal, log: Path, models: Path, devices: int) -> Judgement:
    """Hold the journal to floe.sqlite and to the files of the models. Every train round had all `devices`."""
    db = sqlite3.connect(f"file:{log}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    with db:
        updates = [dict(row) for row in db.execute("SELECT * FROM updates")]
        known = {row["round"]: row["sha256"] for row in db.execute("SELECT round, sha256 FROM models")}
        unfinished = [f"{r['task']} {r['round']}" for r in db.execute("SELECT * FROM rounds WHERE state = 'open'")]
    db.close()
    made = journal.made()
    wrong = [f"round {what} hung: it is still open" for what in unfinished]
    wrong += _outcomes(made, updates)
    by_round: dict[int, dict[str, Made]] = defaultdict(dict)
    for one in made:
        by_round[one.round][one.device] = one
    for round_ in sorted(known):
        if round_ and not (fault := _made_of(by_round[round_], known, journal, models, round_, devices)):
            continue
        wrong += [fault] if round_ else []
    ends = Counter(row["outcome"] == "accepted" for row in updates if row["task"] == "train")
    return Judgement(wrong, len(made), ends[True], ends[False], len(known) - (0 in known))


def _outcomes(made: list[Made], updates: list[dict[str, Any]]) -> list[str]:
    wrong = []
    rows = [row for row in updates if row["task"] == "train"]
    for one in made:
        # What never came whole has no hash in the log: it is known by its device and round.
        fits = [
            row
            for row in rows
            if (row["device"], row["round"]) == (one.device, one.round)
            and (row["sha256"] == one.sha256 or (row["sha256"] is None and row["outcome"] != "accepted"))
        ]
        if len(fits) != 1:
            ends = ", ".join(row["outcome"] for row in fits) or "none"
            wrong.append(f"update of {one.device} in round {one.round} ({one.sha256[:12]}): outcomes: {ends}")
    hashes = {(one.device, one.round, one.sha256) for one in made}
    for row in rows:
        if row["outcome"] == "accepted" and (row["device"], row["round"], row["sha256"]) not in hashes:
            wrong.append(f"accepted, and never made: {row['device']}, round {row['round']}, {row['sha256']}")
    twice = Counter((row["device"], row["round"], row["task"]) for row in updates if row["outcome"] == "accepted")
    wrong += [
        f"accepted {count} times: {device}, {task} {r}" for (device, r, task), count in twice.items() if count > 1
    ]
    without = [row for row in updates if row["outcome"] != "accepted" and not row["reason"]]
    return wrong + [f"{row['outcome']} without a reason: {row['device']}, round {row['round']}" for row in without]


def _made_of(
    made: Mapping[str, Made], known: Mapping[int, str], journal: Journal, models: Path, round_: int, devices: int
) -> str:
    """What is wrong with a model: made again, as weighted mean of the journaled updates with the base's scaling."""
    if len(made) != devices:
        return f"model {round_} was made without all: of {', '.join(sorted(made))}"
    base = (models / f"{round_ - 1}.safetensors").read_bytes()
    found = (models / f"{round_}.safetensors").read_bytes()
    arrays, schema = read_weights(base)
    updates = []
    for device in sorted(made):
        content = (journal.folder / made[device].sha256).read_bytes()
        if sha256(content) != made[device].sha256:
            return f"the journal is damaged: {made[device]}"
        updates.append((read_weights(content)[0], made[device].samples))
    total = float(sum(samples for _, samples in updates))
    mean = {name: array for name, array in arrays.items() if name.startswith("scaling.")}
    for name in arrays.keys() - mean.keys():
        summed = np.zeros(arrays[name].shape, np.float64)
        for update, samples in updates:
            summed += update[name].astype(np.float64) * samples
        mean[name] = (summed / total).astype(arrays[name].dtype)
    expected = sha256(weights_file(mean, schema))
    if not expected == sha256(found) == known[round_]:
        return f"model {round_}: log {known[round_][:12]}, file {sha256(found)[:12]}, made again {expected[:12]}"
    return ""
