"""What devices that lie do to each rule: 10 devices on digits, 2 of them malicious, `floe.aggregate` and the trainer.

    python tests/bench/attacks.py choose   the norm to cut to, server rates, mu: without attack, on a seed of their own
    python tests/bench/attacks.py run      every attack, rule, partition and seed that is not yet measured

In one process, without broker: each round the ten updates are files, and `next_model` makes the next model of them, as
in the aggregator. Every run is a line of docs/runs/attacks/<partition>.jsonl: accuracy on all test rows after each
round, and how many triggered test rows of other classes the model takes for the target of the backdoor. Settings stand
in settings.json, what was tried for them in tried.jsonl; docs/results.md is made from these. On the same machine and
torch the lines are the same, bit for bit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import click
import msgspec
import numpy as np
import stored
from attackers import ATTACKS, DEVICES, FACTOR, MALICIOUS, SCALE, SIGMA, TARGET, Arrays, triggered
from msgspec.structs import replace

from demo.presets import PRESETS
from edge_client.data.features import Features
from edge_client.data.sources import source
from edge_client.data.split import split
from edge_client.trainer import Trainer
from floe import adaptive, weights
from floe.aggregate import next_model
from floe.differences import Differences
from floe.errors import DataError, Refused, RuleError
from floe.mean import Update
from floe.plan import Plan
from floe.soundness import least_updates

Partition = Literal["iid", "dirichlet"]

RUNS = Path(__file__).parents[2] / "docs" / "runs" / "attacks"
ALPHA, ROUNDS = 0.5, 20
SEEDS, CHOOSING = (0, 1, 2), 100  # of the runs; of what is chosen on
PARTITIONS: tuple[Partition, ...] = ("iid", "dirichlet")
PLAN = replace(PRESETS["digits"], model="mlp")
RULES: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "fedprox": {"rule": "fedavg"},  # and mu, which is the device's; mu and server rates: see `choose`
    "fedavgm": {"server_momentum": 0.9},
    "fedadagrad": {"server_momentum": 0.0, "server_tau": 0.001},  # Reddi et al. 2021, section 5: no momentum
    "fedyogi": {"server_momentum": 0.9, "server_beta2": 0.99, "server_tau": 0.001},
    "fedadam": {"server_momentum": 0.9, "server_beta2": 0.99, "server_tau": 0.001},
    "median": {},
    "trimmed-mean": {"byzantine": MALICIOUS},
    "krum": {"byzantine": MALICIOUS},
    "multi-krum": {"byzantine": MALICIOUS},
    "norm-clipping": {},  # and the norm: see `choose`
}
RATES = (0.01, 0.0316, 0.1, 0.316, 1.0)  # half decades, as Reddi et al. 2021 try
TRIED: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "fedprox": ("mu", (0.01, 0.1, 1.0)),  # as Li et al. 2020
    **dict.fromkeys(adaptive.RULES, ("server_learning_rate", RATES)),
}
LAST = 3  # rounds whose mean accuracy decides what is chosen
CLIPPING_ROUNDS = 5  # whose norms are asked


@dataclass(frozen=True)
class Case:
    """One run."""

    attack: str
    rule: str
    partition: Partition
    seed: int


@click.group()
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="folder of the results")
@click.pass_context
def main(context: click.Context, runs: Path) -> None:
    """Attack by rule by partition, on digits."""
    runs.mkdir(parents=True, exist_ok=True)
    context.obj = runs


@main.command()
@click.pass_obj
def choose(runs: Path) -> None:
    """What rules need in all runs; written with all other settings.

    norm-clipping cuts to the median of the updates' norms in the first rounds without attack, IID and Dirichlet
    together. Of each grid in `TRIED` the value is taken whose last rounds without attack are best, both together.
    """
    try_out(runs / "tried.jsonl")
    rules = {rule: dict(fixed) for rule, fixed in RULES.items()}
    rules["norm-clipping"]["clip_norm"] = round(
        float(np.median([norm for how in PARTITIONS for norm in norms(how)])), 2
    )
    for rule, (key, _) in TRIED.items():
        rules[rule][key] = best(rule, stored.lines(runs / "tried.jsonl"))
    (runs / "settings.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(settings() | {"rules": rules})) + b"\n"
    )


def try_out(path: Path) -> None:
    """A line for each value of the grids and each partition, of what has none: a run, and the keys that it had."""
    done = stored.lines(path) if path.exists() else []
    for rule, (key, values) in TRIED.items():
        for value, partition in product(values, PARTITIONS):
            case, keys = Case("none", rule, partition, CHOOSING), {**RULES[rule], key: value}
            if not any(line == {**line, **asdict(case), "keys": keys} for line in done):
                append(path, {**measure(case, keys), "keys": keys})


def best(rule: str, lines: Sequence[Mapping[str, Any]]) -> float:
    """The value of a rule's grid with the highest score; of equal ones, the smaller."""
    return max(TRIED[rule][1], key=lambda value: score(rule, value, lines))


def score(rule: str, value: float, lines: Sequence[Mapping[str, Any]]) -> float:
    """Mean accuracy of the last rounds with this value, all partitions together. Raises `click.ClickException`."""
    key = TRIED[rule][0]
    found = [line["accuracy"] for line in lines if (line["rule"], line["keys"].get(key)) == (rule, value)]
    if len(found) < len(PARTITIONS):
        raise click.ClickException(f"{rule} was not tried with {key} = {value}: `python tests/bench/attacks.py choose`")
    return fmean(fmean(accuracies[-LAST:]) for accuracies in found)


def settings() -> dict[str, Any]:
    """What was fixed without any run."""
    usual = msgspec.structs.asdict(Plan())
    plan = {key: value for key, value in msgspec.structs.asdict(PLAN).items() if value != usual[key]}
    return {
        "devices": DEVICES, "malicious": MALICIOUS, "alpha": ALPHA, "rounds": ROUNDS, "plan": plan,
        "choosing": CHOOSING, "clipping_rounds": CLIPPING_ROUNDS, "factor": FACTOR, "sigma": SIGMA, "scale": SCALE,
        "target": TARGET,
    }  # fmt: skip


def norms(partition: Partition) -> Iterator[float]:
    """The norms of the updates of the first rounds of FedAvg without attack."""
    case = Case("none", "fedavg", partition, CHOOSING)
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(case, source("digits", CHOOSING), {}, Path(folder))
        for number in range(1, CLIPPING_ROUNDS + 1):
            updates = list(federation.updates(number))
            yield from Differences(updates, federation.base).norms()
            federation.advance(updates)


@main.command()
@click.pass_obj
def run(runs: Path) -> None:
    """Measure what is not yet measured: a line for each run."""
    rules = chosen(runs)
    for seed, partition, attack, rule in product(SEEDS, PARTITIONS, ATTACKS, RULES):
        case, path = Case(attack, rule, partition, seed), runs / f"{partition}.jsonl"
        if case not in measured(path):
            append(path, measure(case, rules[rule]))


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Store a run, and tell it."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    click.echo(line)


def chosen(runs: Path) -> dict[str, dict[str, Any]]:
    """The plan's keys of each rule, as `choose` wrote them. Raises `click.ClickException`."""
    found: dict[str, dict[str, Any]] = stored.document(runs / "settings.json")["rules"]
    return found


def measured(path: Path) -> set[Case]:
    """The runs that have their line."""
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {Case(line["attack"], line["rule"], line["partition"], line["seed"]) for line in lines}


def measure(case: Case, rule: Mapping[str, Any], rounds: int = ROUNDS) -> dict[str, Any]:
    """One run: after each round the accuracy, and the success of the backdoor, both from 0 to 1.

    `rule` are keys of the plan; without a rule among them it is the case's. `void` counts the rounds that made no
    model: then the base stays, as in the aggregator.
    """
    whole = source("digits", case.seed)
    exam, trap = Trainer(few(whole), PLAN, {}, 1), Trainer(trapped(whole), PLAN, {}, 1)
    accuracy, success, void = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(case, whole, rule, Path(folder))
        for number in range(1, rounds + 1):
            void += not federation.advance(list(federation.updates(number)))
            base = weights.read(federation.base)
            accuracy.append(share(exam, base))
            success.append(share(trap, base))
    return {**asdict(case), "accuracy": accuracy, "success": success, "void": void}


def share(trainer: Trainer, base: Arrays) -> float:
    """Correct test rows; of the trap, those that are taken for the target. 0 for a model without a finite loss."""
    try:
        metrics = trainer.evaluate(base).before
    except DataError:
        return 0.0
    assert metrics is not None
    return round(metrics.accuracy, 4)


def few(whole: Features) -> Features:
    """The test rows, and no more training rows than a trainer wants."""
    return Features(whole.train_x[:1], whole.train_y[:1], whole.test_x, whole.test_y, whole.schema)


def trapped(whole: Features) -> Features:
    """The test rows of other classes, with the trigger, called the target."""
    x = triggered(whole.test_x[whole.test_y != TARGET])
    return Features(whole.train_x[:1], whole.train_y[:1], x, np.full(len(x), TARGET), whole.schema)


class Federation:
    """The devices of a case, and the global model in the file `base`."""

    def __init__(self, case: Case, whole: Features, rule: Mapping[str, Any], folder: Path) -> None:
        self._seed, self._attack = case.seed, ATTACKS[case.attack]
        self._plan = replace(PLAN, seed=case.seed, **{"rule": case.rule, **rule})
        parts = split(whole, DEVICES, case.partition, ALPHA, case.seed)
        self._rows = [len(part.train_y) for part in parts]
        learnt = [self._attack.rows(part) for part in parts[:MALICIOUS]] + parts[MALICIOUS:]
        self._trainers = [Trainer(one_test(part), self._plan, {}, 1) for part in learnt]
        self.base = folder / "base"
        weights.write(self.base, self._trainers[0].initial(), sync=False)

    def updates(self, number: int) -> Iterator[Update]:
        """Those of a round that the aggregator would accept: finite, of devices whose training did not diverge."""
        base = weights.read(self.base)
        for k, trainer in enumerate(self._trainers):
            path = self.base.with_name(f"device-{k}")
            try:
                trained, _ = trainer.train(base, device=path.name, round=number, stop=lambda: False)
                if k < MALICIOUS:
                    trained = self._attack.send(base, trained, np.random.default_rng([self._seed, number, k]))
                weights.write(path, trained, sync=False)
                weights.check_numbers(path)
            except (DataError, Refused):
                continue
            yield Update(path, self._rows[k])

    def advance(self, updates: Sequence[Update]) -> bool:
        """The next model takes the place of the base, and its memory that of the base's, for rules that have one.

        False, and both stay, where there is no model.
        """
        if len(updates) < least_updates(self._plan):
            return False
        out, memory, after = map(self.base.with_name, ("next", "memory", "next-memory"))
        try:
            before = memory if memory.exists() else None
            made = next_model(self._plan, updates, self.base, out, before=before, after=after)
        except RuleError:
            return False
        out.replace(self.base)
        if made.memory:
            after.replace(memory)
        return True


def one_test(part: Features) -> Features:
    """Of the test rows one: what a device measures is of no use here."""
    return Features(part.train_x, part.train_y, part.test_x[:1], part.test_y[:1], part.schema)


if __name__ == "__main__":
    main()
