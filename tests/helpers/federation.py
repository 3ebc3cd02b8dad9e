"""A federation in a temporary folder: keys, tiny features, floe.toml, its processes, and what its log says."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_client.data import folder as feature_folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from floe import weights
from floe.errors import StoreError
from floe.identity import new_secret
from floe.schema import Schema
from floe.store import FILE, read_log
from helpers.broker import broker_on, free
from helpers.plain import SECTIONS
from helpers.process import WAIT_S, Process, Spawn, spawn

POLL_S = 0.05
LINEAGE = "main"
NAME = "floe"
FEATURES = ("a", "b", "c")

Sections = Mapping[str, Mapping[str, object]]
# The trainer is numpy's: what a device computes is tested elsewhere, and torch takes seconds to import.
DEFAULTS: Sections = {
    "rounds": {"count": 2, "devices": 2, "deadline_s": 600.0, "grace_s": 600.0},
    "plan": {"model": "plain", "epochs": 1, "learning_rate": 0.1, "seed": 7},
    "trainers": SECTIONS["trainers"],
    "device": {"threads": 1},
}
# 31 chunks of 64 KiB: enough to lose some, to be stopped among them, and to arrive out of order.
BIG: Sections = {"plan": {"hidden": [500]}}
CHUNKS = 31


class Federation:
    """Everything of one federation under `folder`, with its broker on `port` of this machine."""

    def __init__(self, folder: Path, port: int, *, secret: bool = True, spawn: Spawn = spawn) -> None:
        self.folder = folder
        self.port = port
        self._spawn = spawn
        self.processes: list[Process] = []
        (folder / "logs").mkdir(parents=True)
        (folder / "state").mkdir(mode=0o700, exist_ok=True)  # or else whoever comes first makes it
        if secret:
            new_secret(folder / "secret.key")

    def configure(self, sections: Sections | None = None, name: str = "floe.toml") -> Path:
        """Write floe.toml: the defaults above, with these keys over them."""
        merged: dict[str, dict[str, object]] = {"mqtt": {"port": self.port}}
        for source in (DEFAULTS, sections or {}):
            for section, keys in source.items():
                merged.setdefault(section, {}).update(keys)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"[{s}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items()) for s, keys in merged.items()
        ]
        part = path.with_name(f".{path.name}.part")
        part.write_text("\n".join(lines))
        part.replace(path)  # a process that begins just now reads the one or the other
        return path

    def features(self, device: str, *, rows: int = 40, names: tuple[str, ...] = FEATURES) -> Path:
        """Tiny features of a device: two classes apart from each other; equal names give equal rows."""
        rng = np.random.default_rng(sum(device.encode()))
        y = np.arange(rows + 20) % 2
        x = (rng.normal(size=(rows + 20, len(names))) + 3.0 * y[:, None]).astype(np.float32)
        schema = Schema((len(names),), 2, names)
        made = Features(x[:rows], y[:rows], x[rows:], y[rows:], schema)
        path = self.folder / "features" / device
        feature_folder.write(path, made, Document(schema=schema))
        return path

    def start(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, by: Sequence[str] = ("floe",)
    ) -> Process:
        """Any command; its output is in logs/<name>.log. `by`: the module that starts it, see `Process`."""
        process = Process(list(arguments), self.folder, self.folder / "logs" / f"{name}.log", env, by, self._spawn)
        self.processes.append(process)
        return process

    def aggregator(self, *flags: str, by: Sequence[str] = ("floe",)) -> Process:
        return self.start("aggregator", "aggregator", *flags, by=by)

    def client(self, device: str, *flags: str, port: int | None = None, by: Sequence[str] = ("floe",)) -> Process:
        """`floe client` for a device whose features are written if they are not there yet."""
        if not (self.folder / "features" / device).exists():
            self.features(device)
        via = ("--port", str(port)) if port else ()
        return self.start(device, "client", "--id", device, "--data", f"features/{device}", *via, *flags, by=by)

    def query(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """Rows of the log; none while there is no log."""
        try:
            db = read_log(self.folder / "log" / FILE)
        except StoreError:
            return []
        try:
            return list(db.query(sql, list(parameters)))
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # the migrations are still being made
                return []
            raise
        finally:
            db.close()

    def until(self, sql: str, *parameters: object, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """The first row of a query, as soon as there is one."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found.extend(self.query(sql, *parameters))
            return bool(found)

        self.wait(there, sql, timeout_s)
        return found[0]

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Until a condition holds; else an error with everything that the processes said."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not after {timeout_s:g} s: {what}\n{self.said()}")
            time.sleep(POLL_S)

    def finish(self, timeout_s: float = WAIT_S) -> None:
        """Until every round is closed."""
        self.until("SELECT * FROM events WHERE kind = 'finished'", timeout_s=timeout_s)

    def models(self) -> dict[int, str]:
        """The SHA-256 of every global model, by round."""
        return {row["round"]: row["sha256"] for row in self.query("SELECT round, sha256 FROM models ORDER BY round")}

    def model(self, round_: int) -> Path:
        return self.folder / "models" / "global" / f"{round_}.safetensors"

    def upload(self, device: str) -> dict[str, weights.AnyArray]:
        """The weights that a device last sent, as the aggregator keeps them."""
        return weights.read(self.folder / "models" / "devices" / f"{device}.safetensors")

    def said(self) -> str:
        """What every process said, by name."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {log.stem}\n{log.read_text(errors='replace')}" for log in logs)

    def close(self) -> None:
        """End every process; fails if one of them ever showed a traceback."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.end()
        print(self.said())
        assert "Traceback" not in self.said(), "a process showed a traceback"


@contextmanager
def a_federation(folder: Path, spawn: Spawn = spawn) -> Iterator[Federation]:
    """A sealed federation with the default plan; at the end every process is stopped and its log looked through."""
    with (
        broker_on(folder / "broker", free()) as broker,
        the_federation(folder / "federation", broker.port, spawn) as made,
    ):
        yield made


@contextmanager
def the_federation(folder: Path, port: int, spawn: Spawn = spawn) -> Iterator[Federation]:
    """The same, on a broker that runs already."""
    made = Federation(folder, port, spawn=spawn)
    made.configure()
    try:
        yield made
    finally:
        made.close()
