"""MNIST CNN, 100 clients, C = 0.1: rounds to 99 % test accuracy, as in McMahan et al. 2017, tables 1 and 2, figure 2.

    python tests/bench/mcmahan.py choose               the learning rates, on a validation split
    python tests/bench/mcmahan.py iid --epochs 5       three seeds to 99 %; --epochs 1 likewise
    python tests/bench/mcmahan.py shards               the pathological split, 50 rounds or --rounds N

Every run is one `floe simulate` in a folder under --work, and goes on where it was when it is started again. What it
measured after each round stands in docs/runs/mcmahan/<run>.jsonl, its settings in <run>.json; docs/results.md is made
from these. One thread each: the same lines, bit for bit, on the same machine and torch.

Learning rates are chosen before any test row is looked at: 5,000 of the 60,000 training rows are held out, the other
55,000 are dealt to 100 clients (seed 100, which no final run has), and the rate with the highest mean validation
accuracy over the last three rounds is taken.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from demo.folder import environment
from edge_client.data import folder, sources, split
from edge_client.data.document import Document
from edge_client.data.features import Features
from edge_client.data.partition import sample

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "docs" / "runs" / "mcmahan"
RATES = (0.05, 0.1, 0.2, 0.4)
SEEDS = (0, 1, 2)
TARGET = 0.99
HELD_OUT, CHOOSING = 5000, 100  # rows; the seed of partition and plan
CHOSEN_AFTER = {5: 10, 1: 20}  # rounds, by epochs
AT_MOST = 100  # rounds, of a run that shall reach the target
CLIENTS = 100


@click.group()
@click.option("--work", type=click.Path(path_type=Path), default=Path("mcmahan"), help="folder of features and runs")
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="folder of the results")
@click.pass_context
def main(context: click.Context, work: Path, runs: Path) -> None:
    """Rounds to 99 %: McMahan et al. 2017, tables 1 and 2."""
    context.obj = (work.absolute(), runs.absolute())


@main.command()
@click.option("--epochs", type=click.Choice(["1", "5"]), required=True)
@click.pass_obj
def choose(places: tuple[Path, Path], epochs: str) -> None:
    """Try each learning rate on the held-out rows."""
    for rate in RATES:
        name = f"choose-E{epochs}-lr{rate}"
        run(places, name, "validation", CHOOSING, int(epochs), rate, CHOSEN_AFTER[int(epochs)], target=0.0)


@main.command()
@click.option("--epochs", type=click.Choice(["1", "5"]), required=True)
@click.option("--seed", type=int, multiple=True, default=SEEDS)
@click.option("--rounds", default=AT_MOST, help="at most")
@click.pass_obj
def iid(places: tuple[Path, Path], epochs: str, seed: tuple[int, ...], rounds: int) -> None:
    """Train to 99 % with rows dealt at random."""
    for one in seed:
        run(places, f"iid-E{epochs}-seed{one}", "iid", one, int(epochs), chosen(places[1], epochs), rounds, TARGET)


@main.command()
@click.option("--seed", default=0)
@click.option("--rounds", default=50, help="in all; more goes on where fewer ended")
@click.pass_obj
def shards(places: tuple[Path, Path], seed: int, rounds: int) -> None:
    """Train with two classes for each client, E = 5."""
    run(places, f"shards-E5-seed{seed}", "shards", seed, 5, chosen(places[1], "5"), rounds, TARGET)


def chosen(runs: Path, epochs: str) -> float:
    """The learning rate with the best validation accuracy over the last three rounds. Raises `click.ClickException`."""
    last = CHOSEN_AFTER[int(epochs)]
    found = {rate: measured(runs / f"choose-E{epochs}-lr{rate}.jsonl") for rate in RATES}
    if any(len(lines) < last for lines in found.values()):
        raise click.ClickException(f"run `choose --epochs {epochs}` first: {runs} has not all of its runs")
    return max(RATES, key=lambda rate: np.mean([line["accuracy"] for line in found[rate][-3:]]))


def measured(path: Path) -> list[dict[str, Any]]:
    """The lines of a run."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(
    places: tuple[Path, Path], name: str, data: str, seed: int, epochs: int, rate: float, rounds: int, target: float
) -> None:
    """One `floe simulate`."""
    work, runs = places
    settings = {
        "rounds": {"count": rounds, "devices": CLIENTS, "fraction": 0.1, "target": target},
        "plan": {
            "model": "cnn", "epochs": epochs, "batch_size": 10, "optimizer": "sgd", "learning_rate": rate,
            "scaling": "none", "seed": seed,
        },
        "device": {"threads": 1},
    }  # fmt: skip
    features, test = prepared(work, data, seed)
    place = work / name
    place.mkdir(exist_ok=True)
    runs.mkdir(parents=True, exist_ok=True)
    (place / "floe.toml").write_text(
        "".join(
            f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for table, keys in settings.items()
        )
    )
    about = {"data": data, "partition_seed": seed, "clients": CLIENTS, **settings}
    (runs / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(about)) + b"\n")
    print(f"{name}: {data}, E={epochs}, B=10, learning rate {rate}, seed {seed}", flush=True)
    command = ["-m", "floe", "simulate", "--features", features, "--test", test, "--results", runs / f"{name}.jsonl"]
    subprocess.run([sys.executable, *map(str, command)], cwd=place, check=True, env=environment(settings, os.environ))


def prepared(work: Path, data: str, seed: int) -> tuple[Path, Path]:
    """The folders of the clients' features, and of the rows that measure; made where they are missing."""
    clients, test = work / f"{data}-{seed}", work / ("held-out" if data == "validation" else "test")
    if test.is_dir() and clients.is_dir():
        return clients, test
    whole = sources.source("mnist", 0)
    if data == "validation":
        whole = held_out(whole)
    kind = "shards" if data == "shards" else "iid"
    parts = split.split(whole, CLIENTS, kind, 0.5, seed)
    shutil.rmtree(clients, ignore_errors=True)
    devices = split.numbered(parts, Document(schema=whole.schema), {"source": "mnist", "seed": seed})
    split.write(devices, clients, force=False)
    few = Features(whole.train_x[:10], whole.train_y[:10], whole.test_x, whole.test_y, whole.schema)
    folder.write(test, few, Document(schema=whole.schema))
    return clients, test


def held_out(whole: Features) -> Features:
    """The training rows alone, some of them in the place of the test rows."""
    test = sample(whole.train_y, HELD_OUT, CHOOSING)
    train = np.setdiff1d(np.arange(len(whole.train_y)), test)
    x, y = whole.train_x, whole.train_y
    return Features(x[train], y[train], x[test], y[test], whole.schema)


if __name__ == "__main__":
    main()
