"""Bytes of a round and what it costs in accuracy, for every encoding: N-BaIoT's autoencoder and MNIST's CNN.

    python tests/bench/encoding.py nbaiot      9 devices, 5 rounds, 3 seeds, every pair of UPLOADS and DOWNLOADS
    python tests/bench/encoding.py mnist       5 clients of 600 rows, 8 rounds, the same

Every run is one `floe simulate`, whose updates and models are encoded and decoded as over a broker. Appended to
docs/runs/encoding/<data>.jsonl is a line for each: settings, seed, bytes of a device in a training round up and down
(mean over the rounds), and the metrics of the last global model. A run whose line is there is not done again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from demo.folder import environment
from edge_client.data import folder, sources, split
from edge_client.data.arrays import read_npz
from edge_client.data.document import Document
from edge_client.data.features import Features
from edge_client.data.partition import sample
from floe.schema import Schema
from floe.store import FILE, read_log

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "docs" / "runs" / "encoding"
WAYS = (("weights", "float32"), ("float32", "float32"), ("float16", "float16"), ("int8", "float16"))
SEEDS = (0, 1, 2)
ROWS = 1000  # at most: benign training rows of a device, benign and attack rows to test on
SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "nbaiot": {
        "rounds": {"count": 5, "devices": 9},
        "plan": {"model": "autoencoder", "epochs": 2, "batch_size": 64, "optimizer": "adam", "learning_rate": 0.001,
                 "scaling": "standard"},
    },
    "mnist": {
        "rounds": {"count": 8, "devices": 5},
        "plan": {"model": "cnn", "epochs": 2, "batch_size": 32, "optimizer": "sgd", "learning_rate": 0.1,
                 "scaling": "none"},
    },
}  # fmt: skip


@click.command()
@click.argument("data", type=click.Choice(list(SETTINGS)))
@click.option("--work", type=click.Path(path_type=Path), default=Path("encoding"), help="folder of features and runs")
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="folder of the results")
@click.option("--seed", type=int, multiple=True, default=SEEDS)
def main(data: str, work: Path, runs: Path, seed: tuple[int, ...]) -> None:
    """Bytes and accuracy of every encoding."""
    runs.mkdir(parents=True, exist_ok=True)
    results = runs / f"{data}.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {(line["plan"]["upload"], line["plan"]["download"], line["plan"]["seed"]) for line in done}
    for one in seed:
        for upload, download in WAYS:
            if (upload, download, one) not in known:
                line = run(work.absolute(), data, {"upload": upload, "download": download, "seed": one})
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def run(work: Path, data: str, plan: Mapping[str, Any]) -> dict[str, Any]:
    """One simulation, from the beginning."""
    settings = {
        "rounds": SETTINGS[data]["rounds"],
        "plan": {**SETTINGS[data]["plan"], **plan},
        "device": {"threads": 1},
        "trainers": {},
    }
    features = work / f"{data}-{plan['seed']}"
    if not features.is_dir():
        PREPARE[data](features, plan["seed"])
    place = work / "run"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "floe.toml").write_text(
        "".join(
            f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for table, keys in settings.items()
            if keys
        )
    )
    command = ["-m", "floe", "simulate", "--features", features, "--test", features / "test", "--results", "lines"]
    environ = {**environment({}, os.environ), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *map(str, command)], cwd=place, check=True, env=environ, stdout=subprocess.DEVNULL)
    last = json.loads((place / "lines").read_text().splitlines()[-1])
    measured = {key: last[key] for key in ("loss", "accuracy", "roc_auc", "sha256")}
    return {"data": data, **settings, **measured, **bytes_of(place / "log")}


def bytes_of(log: Path) -> dict[str, float]:
    """Of a device in a training round: the mean."""
    db = read_log(log / FILE)
    sql = (
        "SELECT avg(bytes_up / n) AS up, avg(bytes_down / n) AS down FROM (SELECT r.*, (SELECT count(*) FROM updates u "
        "WHERE u.round = r.round AND u.task = r.task) * 1.0 AS n FROM rounds r WHERE task = 'train')"
    )
    (row,) = db.query(sql)
    db.close()
    return {"bytes_up": row["up"], "bytes_down": row["down"]}


def nbaiot(out: Path, seed: int) -> None:
    """Nine devices; the test rows of all, benign and attacks, measure the global model."""
    source = Path(os.environ["FLOE_DATA"]) / "nbaiot"
    tests: list[tuple[Any, Any]] = []
    for path in sorted(source.glob("*.npz")):
        made = device_of(path, seed)
        tests.append((made.test_x, made.test_y))
        folder.write(out / path.stem.lower(), made, Document(schema=made.schema))
    x, y = (np.concatenate(parts) for parts in zip(*tests, strict=True))
    few = Features(made.train_x[:100], made.train_y[:100], x, y, made.schema)
    folder.write(out / "test", few, Document(schema=made.schema))


def device_of(path: Path, seed: int) -> Features:
    """Some benign rows to train on; some others and as many of attacks to test on."""
    rng = np.random.default_rng(seed)

    def some(name: str) -> np.ndarray[Any, Any]:
        rows = read_npz(path, name, 10**10).astype(np.float64)
        taken = rows[np.sort(rng.choice(len(rows), min(ROWS, len(rows)), replace=False))]
        return np.asarray(np.sign(taken) * np.log1p(np.abs(taken)), np.float32)  # the largest are 1e17

    train, benign, attacks = (some(name) for name in ("benign_train", "benign_test", "attack"))
    test_y = np.repeat([0, 1], [len(benign), len(attacks)])
    schema = Schema((train.shape[1],), 2)
    return Features(train, np.zeros(len(train), np.int64), np.concatenate([benign, attacks]), test_y, schema)


def mnist(out: Path, seed: int) -> None:
    """3,000 rows, dealt to five clients at random; 2,000 test rows measure the global model, a quarter theirs."""
    whole = sources.source("mnist", 0)
    rows, test = sample(whole.train_y, 3000, seed), sample(whole.test_y, 2000, seed)
    few = Features(
        whole.train_x[rows[:10]], whole.train_y[rows[:10]], whole.test_x[test], whole.test_y[test], whole.schema
    )
    small = Features(whole.train_x[rows], whole.train_y[rows], few.test_x[::4], few.test_y[::4], whole.schema)
    about, clients = Document(schema=whole.schema), split.split(small, 5, "iid", 0.5, seed)
    split.write(split.numbered(clients, about, {"source": "mnist", "seed": seed}), out, force=False)
    folder.write(out / "test", few, about)


PREPARE = {"nbaiot": nbaiot, "mnist": mnist}

if __name__ == "__main__":
    main()
