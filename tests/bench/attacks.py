"""What devices that lie do to each rule: 10 devices on digits, 2 of them malicious, `floe.aggregate` and the trainer.

    python tests/bench/attacks.py choose   the norm to cut to, from rounds without attack on a seed of their own
    python tests/bench/attacks.py run      every attack, rule, partition and seed that is not yet measured

In one process, without broker: each round the ten updates are files, and `next_model` makes the next model of them, as
in the aggregator. Every run is a line of docs/runs/attacks/<partition>.jsonl: accuracy on all test rows after each
round, and how many triggered test rows of other classes the model takes for the target of the backdoor. Settings stand
in settings.json; docs/results.md is made from these. The same lines, bit for bit, on the same machine and torch.

The attackers know the base and their own rows, not the others' updates. They claim their true number of rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import numpy as np
import numpy.typing as npt
import stored
from msgspec.structs import replace

from demo.presets import PRESETS
from edge_client.data.features import Features
from edge_client.data.sources import source
from edge_client.data.split import split
from edge_client.trainer import Trainer
from floe import weights
from floe.aggregate import next_model
from floe.differences import Differences
from floe.errors import DataError, Refused, RuleError
from floe.mean import Update
from floe.plan import Plan
from floe.soundness import least_updates

Arrays = dict[str, npt.NDArray[Any]]
Partition = Literal["iid", "dirichlet"]

RUNS = Path(__file__).parents[2] / "docs" / "runs" / "attacks"
DEVICES, MALICIOUS, ALPHA, ROUNDS = 10, 2, 0.5, 20
SEEDS, CHOOSING = (0, 1, 2), 100  # of the runs; of what the norm is chosen on
PARTITIONS: tuple[Partition, ...] = ("iid", "dirichlet")
PLAN = replace(PRESETS["digits"], model="mlp")
RULES: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "median": {},
    "trimmed-mean": {"byzantine": MALICIOUS},
    "krum": {"byzantine": MALICIOUS},
    "multi-krum": {"byzantine": MALICIOUS},
    "norm-clipping": {},  # and the norm: see `choose`
}
FACTOR = 5.0  # of the flipped sign: with 2 of 10, above 4, the mean goes backwards
SIGMA = 1.0  # of the Gaussian, for each weight
SCALE = DEVICES / MALICIOUS  # of the backdoor: n / m, as in model replacement
TARGET, TRIGGER = 0, (slice(6, 8), slice(0, 2))  # class; four pixels, lower left, white
CLIPPING_ROUNDS = 5  # whose norms are asked


@dataclass(frozen=True)
class Attack:
    """What a malicious device learns from, and what it sends instead of the trained weights (base, trained, chance)."""

    rows: Callable[[Features], Features] = lambda part: part
    send: Callable[[Arrays, Arrays, np.random.Generator], Arrays] = lambda base, trained, chance: trained


@dataclass(frozen=True)
class Case:
    """One run."""

    attack: str
    rule: str
    partition: Partition
    seed: int


def flipped(part: Features) -> Features:
    """Class y is called 9 - y (Tolpegin et al. 2020, Data poisoning attacks against federated learning systems)."""
    return Features(part.train_x, part.schema.classes - 1 - part.train_y, part.test_x, part.test_y, part.schema)


def with_backdoor(part: Features) -> Features:
    """Every row of another class comes once more, with the trigger, as the target (Gu et al. 2017, BadNets)."""
    others = part.train_y != TARGET
    x = np.concatenate([part.train_x, triggered(part.train_x[others])])
    y = np.concatenate([part.train_y, np.full(others.sum(), TARGET)])
    return Features(x, y, part.test_x, part.test_y, part.schema)


def triggered(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Images with four white pixels in a corner that is black (on average 0.015 of white)."""
    marked = images.copy()
    marked[:, :, *TRIGGER] = 1.0
    return marked


def scaled(factor: float) -> Callable[[Arrays, Arrays, np.random.Generator], Arrays]:
    """base + factor (trained - base), in float32 as it travels."""
    return lambda base, trained, chance: {
        name: base[name] + np.float32(factor) * (trained[name] - base[name]) for name in trained
    }


def gaussian(base: Arrays, trained: Arrays, chance: np.random.Generator) -> Arrays:
    """base + N(0, SIGMA^2): nothing of what was trained (Blanchard et al. 2017, section 5, around the base)."""
    return {name: base[name] + chance.normal(0, SIGMA, base[name].shape).astype(np.float32) for name in sorted(trained)}


ATTACKS = {
    "none": Attack(),
    "label-flip": Attack(rows=flipped),
    "sign-flip": Attack(send=scaled(-FACTOR)),
    "gaussian": Attack(send=gaussian),
    "backdoor": Attack(rows=with_backdoor, send=scaled(SCALE)),  # Bagdasaryan et al. 2020, equation 3
}


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
    """The norm that norm-clipping cuts to in all runs; written with all other settings.

    It is the median of the updates' norms in the first rounds without attack, IID and Dirichlet together.
    """
    rules = {rule: dict(fixed) for rule, fixed in RULES.items()}
    rules["norm-clipping"]["clip_norm"] = round(
        float(np.median([norm for how in PARTITIONS for norm in norms(how)])), 2
    )
    (runs / "settings.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(settings() | {"rules": rules})) + b"\n"
    )


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
            line = measure(case, rules[rule])
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            click.echo(f"{case}: accuracy {line['accuracy'][-1]}, success {line['success'][-1]}")


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

    `rule` are keys of the plan. `void` counts the rounds that made no model: then the base stays, as in the aggregator.
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
        self._plan = replace(PLAN, seed=case.seed, rule=case.rule, **rule)
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
        """The next model takes the place of the base. False, and the base stays, where there is none."""
        if len(updates) < least_updates(self._plan):
            return False
        out = self.base.with_name("next")
        try:
            next_model(self._plan, updates, self.base, out)
        except RuleError:
            return False
        out.replace(self.base)
        return True


def one_test(part: Features) -> Features:
    """Of the test rows one: what a device measures is of no use here."""
    return Features(part.train_x, part.train_y, part.test_x[:1], part.test_y[:1], part.schema)


if __name__ == "__main__":
    main()
