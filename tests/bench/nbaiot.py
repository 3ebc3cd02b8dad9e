"""N-BaIoT: what federated learning gains nine IoT devices that each know only their own normal traffic.

    python tests/bench/nbaiot.py choose      the candidates, on rows that no final figure is of
    python tests/bench/nbaiot.py run         seeds 0 to 4, every way of training, on the test rows
    python tests/bench/nbaiot.py table       the tables of docs/results.md, from docs/runs/nbaiot/run.jsonl

Autoencoders learn from benign rows (Meidan et al. 2018); the score of a row is its reconstruction error. Ways, all with
the same plan and the same number of epochs over a device's rows:
- local: each device by itself, scaled by its own rows;
- federated: one model by FedAvg (`floe simulate`, so bit for bit that of a federation over a broker);
- own: the federated model after `TUNED` more epochs on the device, sent to nobody;
- central: one model of all training rows in one place, scaled together;
- pca: each device's principal components, as many as explain `EXPLAINED` of its scaled rows' variance.

How the settings were chosen: on seeds 100 to 102, with a fifth of every device's benign training rows (by the seed) and
a fifth of its attack rows (of every type, always the same) as the rows to measure on. Those attack rows are left out of
the final test; the benign test rows were never read before. The rule for the PCA was chosen on the same rows, the best
for it of 0.8, 0.85, 0.9, 0.95, 0.99, 0.995, 0.999 and 20 components. What was tried:
docs/runs/nbaiot/tried.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt
from anomaly import HEADS, MODES, Errors, Line, judged, means, table
from learning import pooled

from demo.folder import environment
from edge_client import evaluate, models, tensors
from edge_client.data import folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from edge_client.data.natural import NBAIOT, devices
from edge_client.scaling import Scaling, sums
from edge_client.trainer import MEAN, SCALE, Trainer
from floe import weights
from floe.plan import Plan

RUNS = Path(__file__).parents[2] / "docs" / "runs" / "nbaiot"
ROUNDS = 100
PLAN = Plan(hidden=(58,), epochs=1, batch_size=256, learning_rate=0.01, threshold_quantile=0.95)
TUNED = 5  # epochs of `own`
EXPLAINED = 0.9
CANDIDATES: dict[str, tuple[Plan, int]] = {
    "chosen": (PLAN, ROUNDS),
    "narrow": (msgspec.structs.replace(PLAN, hidden=(16,)), ROUNDS),
    "small batches": (msgspec.structs.replace(PLAN, batch_size=32, learning_rate=0.001), 50),
    "own scaling": (msgspec.structs.replace(PLAN, hidden=(32,), scaling="local"), ROUNDS),
}
CHOOSING, SEEDS = (100, 101, 102), (0, 1, 2, 3, 4)
SHARE = 0.2  # of benign training rows and of attack rows, to choose on
ATTACKS_SEED = 1000  # which attack rows those are

Arrays = dict[str, npt.NDArray[Any]]
Parts = dict[str, Features]


def parts(choosing: int | None) -> Parts:
    """Every device's rows: of a seed to choose by, or those of the final test."""
    return {
        name: _chosen_on(features, kinds, choosing) if choosing is not None else _final(features, kinds)
        for name, features, kinds in _devices()
    }


def _devices() -> Iterator[tuple[str, Features, npt.NDArray[np.uint8]]]:
    """Name, features, and the type of every attack row, which come last of the test rows and in this order."""
    for name, (features, document) in devices(NBAIOT).items():
        with np.load(Path(os.environ["FLOE_DATA"]) / NBAIOT / str(document.origin["file"])) as file:
            yield name, features, file["attack_type"]


def set_apart(kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which attack rows are there to choose on: `SHARE` of every type."""
    rng = np.random.default_rng(ATTACKS_SEED)
    apart = np.zeros(len(kinds), bool)
    for kind in np.unique(kinds):
        rows = rng.permutation(np.flatnonzero(kinds == kind))
        apart[rows[: round(SHARE * len(rows))]] = True
    return apart


def _final(features: Features, kinds: npt.NDArray[np.uint8]) -> Features:
    benign = len(features.test_y) - len(kinds)
    kept = np.concatenate([np.ones(benign, bool), ~set_apart(kinds)])
    return Features(features.train_x, features.train_y, features.test_x[kept], features.test_y[kept], features.schema)


def _chosen_on(features: Features, kinds: npt.NDArray[np.uint8], seed: int) -> Features:
    order = np.random.default_rng(seed).permutation(len(features.train_x))
    held, rest = np.split(order, [len(order) // round(1 / SHARE)])
    attacks = features.test_x[-len(kinds) :][set_apart(kinds)]
    test_x = np.concatenate([features.train_x[held], attacks])
    test_y = np.repeat([0, 1], [len(held), len(attacks)])
    return Features(features.train_x[rest], features.train_y[rest], test_x, test_y, features.schema)


def _few(features: Features) -> Features:
    """With ten test rows: what is measured while training is not used here."""
    x, y = features.test_x[:10], features.test_y[:10]
    return Features(features.train_x, features.train_y, x, y, features.schema)


def _scaling(features: Features) -> Arrays:
    found = Scaling.of(sums(features.train_x))
    return {MEAN: found.mean, SCALE: found.scale}


def simulated(found: Parts, plan: Plan, rounds: int) -> Arrays:
    """The last global model of `floe simulate`."""
    with tempfile.TemporaryDirectory() as place:
        for name, features in found.items():
            folder.write(Path(place) / "features" / name, _few(features), Document(schema=features.schema))
        given = {"rounds": {"count": rounds, "devices": len(found)}, "plan": msgspec.to_builtins(plan)}
        settings = {**given, "device": {"threads": 1}}
        (Path(place) / "floe.toml").write_text(
            "".join(f"[{table}]\n" + _toml(keys) for table, keys in settings.items())
        )
        command = [sys.executable, "-m", "floe", "simulate"]
        done = subprocess.run(command, cwd=place, env=environment(settings, os.environ), capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"floe simulate: {done.stderr[-500:]}")
        return weights.read(Path(place) / "models" / "global" / f"{rounds}.safetensors")


def _toml(keys: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def alone(features: Features, plan: Plan, epochs: int, name: str) -> Arrays:
    """What one place learns from its rows by itself, with the scaling of these rows."""
    trainer = Trainer(_few(features), msgspec.structs.replace(plan, epochs=epochs, scaling="standard"), {}, 1)
    learned, _ = trainer.train(trainer.initial(), device=name, round=1, stop=lambda: False)
    return {**learned, **_scaling(features)}


def tuned(features: Features, plan: Plan, base: Arrays, name: str) -> Arrays:
    """The global model after `TUNED` more epochs on one device, in the round that would have followed."""
    scaling = {key: base[key] for key in (MEAN, SCALE)} if MEAN in base else _scaling(features)
    trainer = Trainer(_few(features), msgspec.structs.replace(plan, epochs=TUNED), {}, 1)
    learned, _ = trainer.train({**base, **scaling}, device=name, round=ROUNDS + 1, stop=lambda: False)
    return {**learned, **scaling}


def models_of(found: Parts, plan: Plan, rounds: int) -> dict[str, dict[str, Arrays]]:
    """For every way of training, each device's model."""
    everything = pooled(list(found.values()))
    base = simulated(found, plan, rounds)
    epochs = rounds * plan.epochs
    return {
        "local": {name: alone(part, plan, epochs, name) for name, part in found.items()},
        "federated": dict.fromkeys(found, base),
        "own": {name: tuned(part, plan, base, name) for name, part in found.items()},
        "central": dict.fromkeys(found, alone(everything, plan, epochs, "central")),
    }


def errors(features: Features, plan: Plan, base: Arrays) -> tuple[Errors, Errors]:
    """The reconstruction errors of a device's training rows and of its test rows."""
    model = models.build(plan, features.schema, {})
    tensors.load(model, {name: array for name, array in base.items() if name not in (MEAN, SCALE)})
    found = base if MEAN in base else _scaling(features)
    scaling = Scaling.received(found[MEAN], found[SCALE], features.schema.shape)
    both = (tensors.rows(scaling.apply(x)) for x in (features.train_x, features.test_x))
    train, test = (evaluate.reconstruction_errors(model, x, lambda: False) for x in both)
    return train, test


def pca_errors(features: Features, explained: float) -> tuple[Errors, Errors]:
    """As `errors`, of the fewest principal components that explain this share of the training rows' variance."""
    scaling = Scaling.of(sums(features.train_x))
    train, test = (scaling.apply(x).astype(np.float64) for x in (features.train_x, features.test_x))
    _, spread, axes = np.linalg.svd(train, full_matrices=False)
    share = np.cumsum(spread**2) / np.sum(spread**2)
    axes = axes[: int(np.searchsorted(share, explained)) + 1]
    train_errors, test_errors = (np.square(x - x @ axes.T @ axes).mean(axis=1) for x in (train, test))
    return train_errors, test_errors


def measured(found: Parts, plan: Plan, rounds: int, **about: Any) -> list[Line]:
    """One line for each way of training and device."""
    every = {
        mode: {name: errors(found[name], plan, base) for name, base in bases.items()}
        for mode, bases in models_of(found, plan, rounds).items()
    }
    every["pca"] = {name: pca_errors(part, EXPLAINED) for name, part in found.items()}
    settings = {"rounds": rounds, "tuned": TUNED, "explained": EXPLAINED, "plan": msgspec.to_builtins(plan)}
    attacks = {name: part.test_y != 0 for name, part in found.items()}
    return [
        {"mode": mode, "seed": plan.seed, "device": name, **about, **values, **settings}
        for mode in MODES
        for name, values in judged(every[mode], attacks, plan.threshold_quantile).items()
    ]


@click.group(help=__doc__)
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="folder of the stored runs")
@click.pass_context
def main(context: click.Context, runs: Path) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    context.obj = runs


@main.command()
@click.option("--only", type=click.Choice(list(CANDIDATES)), multiple=True, default=list(CANDIDATES))
@click.pass_obj
def choose(runs: Path, only: tuple[str, ...]) -> None:
    """The candidates on rows that no final figure is of."""
    for name in only:
        plan, rounds = CANDIDATES[name]
        for seed in CHOOSING:
            lines = measured(parts(seed), msgspec.structs.replace(plan, seed=seed), rounds, candidate=name)
            store(runs / "choose.jsonl", lines)


@main.command()
@click.option("--seed", type=int, multiple=True, default=SEEDS)
@click.pass_obj
def run(runs: Path, seed: tuple[int, ...]) -> None:
    """Every way of training on the test rows."""
    found = parts(None)
    for one in seed:
        store(runs / "run.jsonl", measured(found, msgspec.structs.replace(PLAN, seed=one), ROUNDS))


@main.command("table")
@click.pass_obj
def table_command(runs: Path) -> None:
    """The tables of the stored runs."""
    click.echo(table([json.loads(line) for line in (runs / "run.jsonl").read_text().splitlines()]), nl=False)


def store(path: Path, lines: Sequence[Line]) -> None:
    """Append the lines, and tell the means."""
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    for mode in MODES:
        figures = zip(HEADS, means(lines, mode=mode), strict=True)
        click.echo(f"{path.stem} seed {lines[0]['seed']} {mode}: {', '.join(f'{h} {v:.4f}' for h, v in figures)}")


if __name__ == "__main__":
    main()
