"""What ten devices can learn of digits with noise on them: accuracy after 20 rounds, for several noise multipliers.

    python tests/bench/privacy.py device           DP-FedAvg in the aggregator
    python tests/bench/privacy.py example          DP-SGD on the devices

Each run is one `floe simulate`, in this process. 1,437 training rows (IID, 143 or 144 a device), 360 test rows,
a linear model. Learning rate and norm are those of `TRIED` with the best accuracy at `TRIED_AT` on seed 100, which no
table has; the search itself is in no epsilon. Then they are the same for every noise; without noise nothing is cut.
Appended to docs/runs/privacy/<unit>.jsonl, and <unit>-tried.jsonl, is a line for each run: settings, epsilon, and the
metrics of the last model. A run whose line is there is not done again. `results_privacy` makes the table of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import chdir
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner

from edge_client.data import folder, sources, split
from edge_client.data.document import Document
from edge_client.data.features import Features
from floe.cli import floe
from floe.store import FILE, read_log

RUNS = Path(__file__).parents[2] / "docs" / "runs" / "privacy"
ROUNDS = {"count": 20, "devices": 10}
PLAN = {"model": "linear", "optimizer": "sgd", "batch_size": 16, "epochs": 1, "scaling": "none"}
DELTA = 1e-3  # below 1 / 144 rows, and below 1 / 10 devices
NORM = {"device": "clip_norm", "example": "max_grad_norm"}
NOISE = {"device": (0.0, 0.5, 1.0, 3.0, 10.0), "example": (0.0, 0.5, 1.0, 2.0, 4.0)}
SEEDS, SEED_OF_TRIAL, TRIED_AT = (0, 1, 2), 100, 1.0
TRIED: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "device": {"learning_rate": (0.1, 0.3), "clip_norm": (0.1, 0.3)},
    "example": {"learning_rate": (0.1, 0.3), "max_grad_norm": (0.3, 1.0)},
}


@click.command()
@click.argument("unit", type=click.Choice(list(NOISE)))
@click.option("--work", type=click.Path(path_type=Path), default=Path("privacy"), help="folder of features and runs")
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="folder of the results")
def main(unit: str, work: Path, runs: Path) -> None:
    """Accuracy and epsilon of every noise."""
    runs.mkdir(parents=True, exist_ok=True)
    tried = runs / f"{unit}-tried.jsonl"
    names = TRIED[unit]
    for values in product(*names.values()):
        once(work.absolute(), tried, plan_of(unit, TRIED_AT, SEED_OF_TRIAL, dict(zip(names, values, strict=True))))
    chosen = best(unit, [json.loads(line) for line in tried.read_text().splitlines()])
    for seed, noise in product(SEEDS, NOISE[unit]):
        once(work.absolute(), runs / f"{unit}.jsonl", plan_of(unit, noise, seed, chosen))


def plan_of(unit: str, noise: float, seed: int, chosen: Mapping[str, float]) -> dict[str, Any]:
    """The settings of a run; without noise, those of no privacy at all."""
    private = {"privacy": unit, "noise_multiplier": noise, "delta": DELTA, NORM[unit]: chosen[NORM[unit]]}
    return {**PLAN, "learning_rate": chosen["learning_rate"], "seed": seed, **(private if noise else {})}


def best(unit: str, lines: list[dict[str, Any]]) -> dict[str, float]:
    """Learning rate and norm of the run with the best accuracy; of equal ones, the smaller."""
    keys = list(TRIED[unit])
    first = min(lines, key=lambda line: (-line["accuracy"], [line["plan"][key] for key in keys]))
    return {key: first["plan"][key] for key in keys}


def once(work: Path, results: Path, plan: Mapping[str, Any]) -> None:
    """Run, and append the line, unless it is there."""
    done = [json.loads(line)["plan"] for line in results.read_text().splitlines()] if results.exists() else []
    if plan in done:
        return
    line = json.dumps(run(work, plan))
    with results.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def run(work: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """One simulation, from the beginning: with keys of noise that nobody has, so that no two have the same result."""
    features, test = prepared(work, plan["seed"])
    place = work / "run"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    settings = {"rounds": ROUNDS, "plan": plan, "device": {"threads": 1}}
    lines = [
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for table, keys in settings.items()
    ]
    (place / "floe.toml").write_text("".join(lines))
    with chdir(place):
        told = ["--features", str(features), "--test", str(test), "--results", "lines"]
        CliRunner().invoke(floe, ["simulate", *told], catch_exceptions=False)
    last = json.loads((place / "lines").read_text().splitlines()[-1])
    return {**settings, **spent(place / "log"), **{key: last[key] for key in ("round", "loss", "accuracy", "sha256")}}


def spent(log: Path) -> dict[str, Any]:
    """The largest epsilon of a device, or that of the last round, with its delta and accountant; None without noise."""
    db = read_log(log / FILE)
    every = " UNION ALL ".join(f"SELECT epsilon, delta, accountant FROM {table}" for table in ("rounds", "devices"))
    (row,) = db.query(f"SELECT max(epsilon) AS epsilon, delta, accountant FROM ({every})")
    db.close()
    return row


def prepared(work: Path, seed: int) -> tuple[Path, Path]:
    """The folders of the devices' features, and of the rows that measure; made where they are missing."""
    devices, test = work / f"devices-{seed}", work / "test"
    if devices.is_dir() and test.is_dir():
        return devices, test
    whole = sources.source("digits", 0)
    most = np.float32(max(float(whole.train_x.max()), 1.0))
    whole = Features(whole.train_x / most, whole.train_y, whole.test_x / most, whole.test_y, whole.schema)
    parts = split.split(whole, ROUNDS["devices"], "iid", 0.5, seed)
    split.write(
        split.numbered(parts, Document(schema=whole.schema), {"source": "digits", "seed": seed}), devices, force=False
    )
    folder.write(test, whole, Document(schema=whole.schema))
    return devices, test


if __name__ == "__main__":
    main()
