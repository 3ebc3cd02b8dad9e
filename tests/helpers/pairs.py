"""Which rules, partitions and other choices run together in `tests/e2e/test_pairs.py`: a covering array, made in code.

Every rule with every partition, and every sound pair of values of all other factors, the rule among them. What is fixed
for the life of a lineage is a `Setup`, one federation; what `floe plan set` may change is a `Case`, one round of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import Any

from msgspec.structs import replace

from floe.plan import Plan
from floe.settings import Rounds
from floe.soundness import faults

PARTITIONS = ("iid", "dirichlet", "shards", "quantity", "column", "natural")
OPTIMIZERS = ("fedavgm", "fedadam", "fedyogi", "fedadagrad")
RULES: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "fedprox": {"mu": 0.5},
    "fedavgm": {"rule": "fedavgm"},
    "fedadam": {"rule": "fedadam", "server_learning_rate": 0.01},
    "fedyogi": {"rule": "fedyogi", "server_learning_rate": 0.01},
    "fedadagrad": {"rule": "fedadagrad", "server_learning_rate": 0.01},
    "median": {"rule": "median"},
    "trimmed-mean": {"rule": "trimmed-mean", "byzantine": 1},
    "krum": {"rule": "krum", "byzantine": 1},
    "multi-krum": {"rule": "multi-krum", "byzantine": 1, "keep": 3},
    "norm-clipping": {"rule": "norm-clipping", "clip_norm": 0.005},
    "fedbuff": {},
    "fedasync": {},
}
ROUNDS: Mapping[str, Mapping[str, Any]] = {
    "fedbuff": {"late": "merge", "quorum": 4, "grace_s": 0.0},
    "fedasync": {"mode": "asynchronous"},
}
DEVICES = 5
FACTORS: Mapping[str, tuple[str, ...]] = {
    "rule": tuple(RULES),
    "model": ("autoencoder", "mlp"),
    "scaling": ("standard", "local", "none"),
    "personal": ("none", "some"),
    "privacy": ("none", "example", "device"),
    "threshold": ("local", "federated"),
    "upload": ("weights", "float32", "float16", "int8"),
    "download": ("float32", "float16"),
}
PERSONAL = {"autoencoder": ("layers.6.*",), "mlp": ("1.4.*",), "plain": ("bias",)}
HIDDEN = {"autoencoder": (32, 16), "mlp": (32, 16), "plain": (1,)}
PRIVATE: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "example": {"noise_multiplier": 1.0, "max_grad_norm": 1.0},
    "device": {"noise_multiplier": 1.0, "clip_norm": 1.0},
}

Pair = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Setup:
    """One federation. `plain` is the trainer without torch, where the model does not matter."""

    partition: str
    model: str
    scaling: str
    personal: str
    rules: tuple[str, ...] = tuple(RULES)

    @property
    def name(self) -> str:
        return f"{self.partition}-{self.model}-{self.scaling}-{self.personal}"


@dataclass(frozen=True)
class Case:
    """One round of a federation."""

    setup: Setup
    rule: str
    privacy: str
    threshold: str
    upload: str
    download: str

    @property
    def factors(self) -> dict[str, str]:
        own = {name: getattr(self, name) for name in ("rule", "privacy", "threshold", "upload", "download")}
        return own | {name: getattr(self.setup, name) for name in ("model", "scaling", "personal")}

    @property
    def plan(self) -> Plan:
        return plan_of(self.factors)

    @property
    def name(self) -> str:
        return " ".join((self.setup.name, self.rule, self.privacy, self.threshold, self.upload, self.download))


# Every model with every scaling, every scaling with and without personal layers; the last three have one round or two.
SETUPS = (
    Setup("iid", "autoencoder", "standard", "none"),
    Setup("dirichlet", "plain", "standard", "some"),
    Setup("shards", "mlp", "local", "some"),
    Setup("quantity", "plain", "none", "none"),
    Setup("column", "autoencoder", "none", "some"),
    Setup("natural", "plain", "local", "none"),
    Setup("iid", "autoencoder", "local", "none", ("fedavg", "fedprox")),
    Setup("iid", "mlp", "none", "none", ("fedavg",)),
    Setup("iid", "mlp", "standard", "none", ("fedavg",)),
)


def plan_of(factors: Mapping[str, str]) -> Plan:
    """The plan of a choice of values."""
    model = factors["model"]
    changes: dict[str, Any] = {
        **PRIVATE[factors["privacy"]],
        **RULES[factors["rule"]],
        **{name: factors[name] for name in ("model", "scaling", "privacy", "threshold", "upload", "download")},
        "hidden": HIDDEN[model],
        "personal": PERSONAL[model] if factors["personal"] == "some" else (),
    }
    if model == "plain" and factors["rule"] == "norm-clipping":
        changes["clip_norm"] = 31.5  # its 1000 numbers move by 1 each
    return replace(Plan(epochs=1, learning_rate=0.05, seed=7, min_rows=1, delta=1e-3, optimizer="sgd"), **changes)


def rounds_of(rule: str) -> Rounds:
    return Rounds(devices=DEVICES, **ROUNDS.get(rule, {}))


def sound(factors: Mapping[str, str]) -> bool:
    """Whether Floe takes the plan, and its trainers do: a classifier has no threshold, one's own no privacy."""
    if factors["model"] == "mlp" and factors["threshold"] == "federated":
        return False
    if factors["model"] == "plain" and factors["privacy"] == "example":
        return False
    return not any(faults(plan_of(factors), rounds_of(factors["rule"])))


def pairs(factors: Mapping[str, str]) -> set[Pair]:
    """All pairs of values of one choice."""
    return {frozenset(pair) for pair in combinations(factors.items(), 2)}


@cache
def wanted() -> frozenset[Pair]:
    """Every pair of values that is in some sound plan."""
    found: set[Pair] = set()
    for values in product(*FACTORS.values()):
        factors = dict(zip(FACTORS, values, strict=True))
        if not pairs(factors) <= found and sound(factors):
            found |= pairs(factors)
    return frozenset(found)


@cache
def cases() -> tuple[Case, ...]:
    """The array: greedily, each round what covers most pairs that nothing has covered before."""
    left, found = set(wanted()), list[Case]()
    for setup, rule in _rounds():
        best = max(_choices(setup, rule), key=lambda case: len(pairs(case.factors) & left))
        left -= pairs(best.factors)
        found.append(best)
    return tuple(found)


def _rounds() -> Iterator[tuple[Setup, str]]:
    """Every rule of every setup; in each, another of those that remember comes twice, one round after the other."""
    for number, setup in enumerate(SETUPS):
        for rule in setup.rules:
            twice = rule == OPTIMIZERS[number % len(OPTIMIZERS)] or len(setup.rules) == 1
            yield from [(setup, rule)] * (1 + twice)


def _choices(setup: Setup, rule: str) -> Iterator[Case]:
    for values in product(*(FACTORS[name] for name in ("privacy", "threshold", "upload", "download"))):
        case = Case(setup, rule, *values)
        if sound(case.factors):
            yield case
