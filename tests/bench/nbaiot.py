"""N-BaIoT: what federated learning gains nine IoT devices that each know only their own normal traffic.

    python tests/bench/nbaiot.py choose      the candidates, on rows that no final figure is of
    python tests/bench/nbaiot.py run         seeds 0 to 4, every way of training, on the test rows
    python tests/bench/nbaiot.py table       the tables of docs/results.md, from docs/runs/nbaiot/run.jsonl

Autoencoders learn from benign rows (Meidan et al. 2018); the score of a row is its reconstruction error. The common
threshold is the one that `threshold = "federated"` agrees on, by its own functions (`floe/threshold.py`). Ways:
- local: each device by itself, scaled by its own rows;
- alone: the same, with settings that were chosen for it;
- federated: one model by FedAvgM and FedProx (`floe simulate`, so bit for bit that of a federation over a broker);
- personal: by FedAvg, with layers that never leave a device, joined with the global model as `evaluate` measures it;
- own: a model by FedAvg after `TUNED` more epochs on the device, sent to nobody;
- central: one model of all training rows in one place, scaled together;
- pca: each device's principal components, as many as explain `EXPLAINED` of its scaled rows' variance.

How the settings were chosen: on seeds 100 to 102, on rows that the final test leaves out (`nbaiot_rows`), each by the
ROC-AUC and, where that is equal, the FPR at TPR 0.99: federated from 96 plans, personal from twelve, alone and central
from 24 each. Local has the federated plan (but for what is of rounds) and its number of epochs. The plans that were
chosen before had been run on the test rows by then. What was tried: docs/runs/nbaiot/tried.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt
from anomaly import HEADS, MODES, Errors, Line, judged, means, table
from learning import pooled
from nbaiot_rows import Parts, few, parts

from demo.folder import environment
from edge_client import evaluate, models, tensors
from edge_client.data import folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from edge_client.scaling import Scaling, sums
from edge_client.trainer import MEAN, SCALE, Trainer
from floe import weights
from floe.plan import Plan

Arrays = dict[str, npt.NDArray[Any]]
Models = dict[str, Arrays]
Setting = tuple[Plan, int]  # and the number of rounds

RUNS = Path(__file__).parents[2] / "docs" / "runs" / "nbaiot"
PLAN = Plan(hidden=(58,), epochs=1, batch_size=256, learning_rate=0.01, threshold_quantile=0.95, threshold="federated")
TUNED = 5  # epochs of `own`
EXPLAINED = 0.9
CHOOSING, SEEDS = (100, 101, 102), (0, 1, 2, 3, 4)


def _setting(rounds: int = 100, **changed: Any) -> Setting:
    return msgspec.structs.replace(PLAN, **changed), rounds


TOGETHER = _setting(50, rule="fedavgm", mu=0.1)
SETTINGS = {
    "pca": _setting(),
    "local": _setting(TOGETHER[1]),
    "alone": _setting(10, batch_size=32, hidden=(16,)),
    "federated": TOGETHER,
    "personal": _setting(personal=("layers.2.*",), hidden=(16,)),
    "own": _setting(),
    "central": _setting(hidden=(16,), learning_rate=0.003),
}
BY_ITSELF = [
    _setting(epochs, hidden=hidden, learning_rate=rate, batch_size=size)
    for hidden in ((16,), (58,))
    for rate in (0.01, 0.003)
    for size, numbers in ((256, (20, 50, 100)), (32, (10, 20, 50)))
    for epochs in numbers
]
CANDIDATES: dict[str, Sequence[Setting]] = {
    "federated": [
        _setting(),
        _setting(mu=0.1),
        _setting(rule="fedavgm", server_momentum=0.95),
        _setting(rule="fedavgm", server_momentum=0.95, mu=0.1),
        TOGETHER,
        _setting(rule="fedadam", server_learning_rate=0.03, mu=0.1),
        _setting(200, rule="fedavgm", mu=0.1, hidden=(16,)),
    ],
    "personal": [
        *(_setting(personal=(names,)) for names in ("layers.2.*", "layers.0.*", "*bias", "layers.2.bias")),
        _setting(personal=("layers.2.*",), hidden=(16,)),
        _setting(50, personal=("layers.2.*",), epochs=2),
        *(_setting(personal=(names,), scaling="local") for names in ("layers.2.*", "*bias")),
        *(_setting(personal=(names,), scaling="local", hidden=(32,)) for names in ("layers.2.*", "*bias")),
        _setting(personal=("layers.0.*", "layers.6.*"), hidden=(58, 29)),
        _setting(personal=("layers.0.*",), scaling="local"),
    ],
    **dict.fromkeys(("alone", "central"), BY_ITSELF),
}


def federated(found: Parts, plan: Plan, rounds: int) -> Models:
    """The last global model of `floe simulate`, joined with each device's personal layers, if the plan has any."""
    with tempfile.TemporaryDirectory() as name:
        return simulated(Path(name), found, plan, rounds)


def simulated(place: Path, found: Parts, plan: Plan, rounds: int) -> Models:
    """As `federated`, with log, models and state in `place`."""
    for device, features in found.items():
        folder.write(place / "features" / device, few(features), Document(schema=features.schema))
    given = {"rounds": {"count": rounds, "devices": len(found)}, "plan": msgspec.to_builtins(plan)}
    settings = {**given, "device": {"threads": 1}}
    (place / "floe.toml").write_text("".join(f"[{head}]\n" + _toml(keys) for head, keys in settings.items()))
    command = [sys.executable, "-m", "floe", "simulate"]
    done = subprocess.run(command, cwd=place, env=environment(settings, os.environ), capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"floe simulate: {done.stderr[-500:]}")
    shared = weights.read(place / "models" / "global" / f"{rounds}.safetensors")
    kept = {path.parent.name: path for path in place.glob(f"state/*/devices/*/*-{rounds}.safetensors")}
    return {device: {**shared, **weights.read(kept[device])} for device in found}


def _toml(keys: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def own(found: Parts, plan: Plan, rounds: int) -> Models:
    """The global model after `TUNED` more epochs on each device, in the round that would have followed."""
    return {
        name: _trained(found[name], plan, base, TUNED, name, rounds + 1)
        for name, base in federated(found, plan, rounds).items()
    }


def local(found: Parts, plan: Plan, rounds: int) -> Models:
    """What each device learns from its rows by itself, with the scaling of these rows."""
    return {name: _trained(part, plan, {}, rounds * plan.epochs, name, 1) for name, part in found.items()}


def central(found: Parts, plan: Plan, rounds: int) -> Models:
    """What one place learns from all rows."""
    everything = local({"central": pooled(list(found.values()))}, plan, rounds)
    return dict.fromkeys(found, everything["central"])


def _trained(features: Features, plan: Plan, base: Arrays, epochs: int, name: str, number: int) -> Arrays:
    """From a base with its scaling, or without one from the first weights and with the scaling of these rows."""
    scaling = {key: base[key] for key in (MEAN, SCALE)} if base else _scaling(features)
    trainer = Trainer(few(features), msgspec.structs.replace(plan, epochs=epochs), {}, 1)
    learned, _ = trainer.train({**(base or trainer.initial()), **scaling}, device=name, round=number, stop=_never)
    return {**learned, **scaling}


def _scaling(features: Features) -> Arrays:
    found = Scaling.of(sums(features.train_x))
    return {MEAN: found.mean, SCALE: found.scale}


def _never() -> bool:
    return False


WAYS: dict[str, Callable[[Parts, Plan, int], Models]] = {
    "local": local, "alone": local, "federated": federated, "personal": federated, "own": own, "central": central,
}  # fmt: skip


def errors(features: Features, plan: Plan, base: Arrays) -> tuple[Errors, Errors]:
    """The reconstruction errors of a device's training rows and of its test rows."""
    model = models.build(plan, features.schema, {})
    tensors.load(model, {name: array for name, array in base.items() if name not in (MEAN, SCALE)})
    found = base if MEAN in base else _scaling(features)
    scaling = Scaling.received(found[MEAN], found[SCALE], features.schema.shape)
    both = (tensors.rows(scaling.apply(x)) for x in (features.train_x, features.test_x))
    train, test = (evaluate.reconstruction_errors(model, x, _never) for x in both)
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


def measured(mode: str, found: Parts, setting: Setting, seed: int) -> list[Line]:
    """One line for each device."""
    plan, rounds = msgspec.structs.replace(setting[0], seed=seed), setting[1]
    if mode == "pca":
        every = {name: pca_errors(part, EXPLAINED) for name, part in found.items()}
    else:
        every = {name: errors(found[name], plan, base) for name, base in WAYS[mode](found, plan, rounds).items()}
    settings = {"rounds": rounds, "tuned": TUNED, "explained": EXPLAINED, "plan": msgspec.to_builtins(plan)}
    told = judged(every, {name: part.test_y != 0 for name, part in found.items()}, plan.threshold_quantile)
    return [{"mode": mode, "seed": seed, "device": name, **values, **settings} for name, values in told.items()]


@click.group(help=__doc__)
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="folder of the stored runs")
@click.pass_context
def main(context: click.Context, runs: Path) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    context.obj = runs


@main.command()
@click.option("--way", type=click.Choice(list(CANDIDATES)), multiple=True, default=list(CANDIDATES))
@click.pass_obj
def choose(runs: Path, way: tuple[str, ...]) -> None:
    """The candidates on rows that no final figure is of."""
    for seed in CHOOSING:
        found = parts(seed)
        for mode in way:
            for number, setting in enumerate(CANDIDATES[mode], 1):
                lines = measured(mode, found, setting, seed)
                store(runs / "choose.jsonl", [{**line, "candidate": number} for line in lines])


@main.command()
@click.option("--seed", type=int, multiple=True, default=SEEDS)
@click.option("--way", type=click.Choice(list(MODES)), multiple=True, default=list(MODES))
@click.pass_obj
def run(runs: Path, seed: tuple[int, ...], way: tuple[str, ...]) -> None:
    """Every way of training on the test rows."""
    found = parts(None)
    for one in seed:
        for mode in way:
            store(runs / "run.jsonl", measured(mode, found, SETTINGS[mode], one))


@main.command("table")
@click.pass_obj
def table_command(runs: Path) -> None:
    """The tables of the stored runs."""
    click.echo(table([json.loads(line) for line in (runs / "run.jsonl").read_text().splitlines()]), nl=False)


def store(path: Path, lines: Sequence[Line]) -> None:
    """Append the lines of one way, and tell the means."""
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    figures = zip(HEADS, means(lines), strict=True)
    about = f"{path.stem} seed {lines[0]['seed']} {lines[0]['mode']}"
    click.echo(f"{about}: {', '.join(f'{head} {value:.4f}' for head, value in figures)}")


if __name__ == "__main__":
    main()
