"""What ten devices can learn of digits with noise on them: accuracy after 50 rounds, for several noise multipliers.

    python tests/bench/privacy.py device           DP-FedAvg in the aggregator, three seeds each
    python tests/bench/privacy.py example          DP-SGD on the devices, three seeds each

Each run is one `floe simulate` in a folder under --work. The table that it prints stands in docs/privacy.md. 1,437
training rows (IID, 143 or 144 a device), 360 test rows, a linear model; learning rates and norms are those of one
trial at noise 1 each, and the same for every noise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from demo.folder import environment
from edge_client.data import folder, sources, split
from edge_client.data.document import Document
from edge_client.data.features import Features
from floe.store import FILE, read_log

NOISE = {"device": (0.0, 0.3, 1.0, 3.0, 10.0), "example": (0.0, 0.5, 1.0, 2.0, 4.0)}
DEVICES, ROUNDS, SEEDS = 10, 50, (0, 1, 2)
PLAN = {"model": "linear", "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 16, "epochs": 1, "scaling": "none"}
PRIVATE = {
    "device": {"privacy": "device", "clip_norm": 0.3, "delta": 1e-3},
    "example": {"privacy": "example", "max_grad_norm": 1.0, "delta": 1e-3},
}


@click.command()
@click.argument("unit", type=click.Choice(["device", "example"]))
@click.option("--work", type=click.Path(path_type=Path), default=Path("privacy"), help="folder of features and runs")
def main(unit: str, work: Path) -> None:
    """Print a table in Markdown: noise, epsilon, accuracy of every seed."""
    click.echo("| noise multiplier | epsilon | accuracy, seeds 0, 1, 2 | median |\n|---|---|---|---|")
    for noise in NOISE[unit]:
        found = [run(work.absolute(), unit, noise, seed) for seed in SEEDS]
        accuracies = [accuracy for accuracy, _ in found]
        each = ", ".join(f"{100 * one:.1f} %" for one in accuracies)
        epsilon = max(epsilon for _, epsilon in found)
        shown = f"{epsilon:,.2f}" if noise else "none"
        click.echo(f"| {noise:g} | {shown} | {each} | {100 * statistics.median(accuracies):.1f} % |")


def run(work: Path, unit: str, noise: float, seed: int) -> tuple[float, float]:
    """The accuracy of the last model on the test rows, and what was spent."""
    features, test = prepared(work, seed)
    place = work / f"{unit}-{noise:g}-{seed}"
    place.mkdir(exist_ok=True)
    private: dict[str, Any] = PRIVATE[unit] | {"noise_multiplier": noise} if noise else {}
    settings = {
        "rounds": {"count": ROUNDS, "devices": DEVICES},
        "plan": PLAN | {"seed": seed} | private,
        "device": {"threads": 1},
    }
    lines = [
        f"[{table}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in kv.items()) for table, kv in settings.items()
    ]
    (place / "floe.toml").write_text("".join(lines))
    command = ["-m", "floe", "simulate", "--features", features, "--test", test, "--results", place / "results.jsonl"]
    subprocess.run(
        [sys.executable, *map(str, command)], cwd=place, check=True, env=environment(settings, os.environ),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    last = json.loads((place / "results.jsonl").read_text().splitlines()[-1])
    db = read_log(place / "log" / FILE)
    spent = db.execute("SELECT max(e) FROM (SELECT epsilon e FROM rounds UNION ALL SELECT epsilon FROM devices)")
    epsilon = spent.fetchone()[0]
    db.close()
    return float(last["accuracy"]), float(epsilon or 0.0)


def prepared(work: Path, seed: int) -> tuple[Path, Path]:
    """The folders of the devices' features, and of the rows that measure; made where they are missing."""
    devices, test = work / f"devices-{seed}", work / "test"
    if devices.is_dir() and test.is_dir():
        return devices, test
    whole = sources.source("digits", 0)
    x = whole.train_x / np.float32(max(float(whole.train_x.max()), 1.0))
    test_x = whole.test_x / np.float32(max(float(whole.train_x.max()), 1.0))
    whole = Features(x, whole.train_y, test_x, whole.test_y, whole.schema)
    parts = split.split(whole, DEVICES, "iid", 0.5, seed)
    split.write(
        split.numbered(parts, Document(schema=whole.schema), {"source": "digits", "seed": seed}), devices, force=False
    )
    folder.write(test, whole, Document(schema=whole.schema))
    return devices, test


if __name__ == "__main__":
    main()
