"""The aggregation rules once more, from the papers, in numpy, for tests: whole models in memory, nothing of Floe's.

A model is one float64 vector here; an update is such a vector and its number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sent:
    """What a device sent, the rows it was trained on; `behind` rounds late, then `start` is what it began with."""

    vector: Vector
    rows: int
    behind: int = 0
    start: Vector | None = None

    def rebased(self, base: Vector, power: float) -> Vector:
        """FedBuff (Nguyen et al. 2022): what it learned, scaled down by (1 + s)^-a, on the present model."""
        return self.vector if self.start is None else base + (1 + self.behind) ** -power * (self.vector - self.start)


def mean(base: Vector, sent: Sequence[Sent], power: float = 0.5) -> Vector:
    """FedAvg (McMahan et al. 2017, Algorithm 1), FedProx' server (Li et al. 2020), FedBuff's."""
    total = sum(one.rows for one in sent)
    return np.sum([one.rows / total * one.rebased(base, power) for one in sent], axis=0)


def median(sent: Sequence[Sent]) -> Vector:
    """Yin et al. 2018, Definition 1."""
    return np.median([one.vector for one in sent], axis=0)


def trimmed(sent: Sequence[Sent], f: int) -> Vector:
    """Yin et al. 2018, Definition 2."""
    return np.sort([one.vector for one in sent], axis=0)[f : len(sent) - f].mean(axis=0)


def krum(sent: Sequence[Sent], f: int, keep: int) -> Vector:
    """Blanchard et al. 2017, section 4: the mean of the `keep` with the least sums of distances to n - f - 2 others."""
    scores = []
    for k, one in enumerate(sent):
        apart = sorted(float(((one.vector - other.vector) ** 2).sum()) for i, other in enumerate(sent) if i != k)
        scores.append(sum(apart[: len(sent) - f - 2]))
    chosen = sorted(range(len(sent)), key=lambda k: scores[k])[:keep]
    return np.mean([sent[k].vector for k in chosen], axis=0)


def clipped(base: Vector, sent: Sequence[Sent], bound: float) -> Vector:
    """Sun et al. 2019, section 4, and DP-FedAvg (McMahan et al. 2018) before its noise: each device alike."""
    moved = [one.vector - base for one in sent]
    return base + np.mean([by / max(1.0, np.linalg.norm(by) / bound) for by in moved], axis=0)


def mixed(base: Vector, one: Sent, mixing: float, power: float) -> Vector:
    """FedAsync (Xie, Koyejo & Gupta 2019, Algorithm 1), polynomial staleness."""
    share = mixing * (1 + one.behind) ** -power
    return (1 - share) * base + share * one.vector


@dataclass(frozen=True)
class Optimizer:
    """A server optimizer and what it remembers: FedAvgM (Hsu, Qi & Brown 2019), Reddi et al. 2021, Algorithm 2."""

    rule: str
    m: Vector
    v: Vector

    @staticmethod
    def new(rule: str, size: int, tau: float) -> Optimizer:
        return Optimizer(rule, np.zeros(size), np.full(size, tau**2))

    def step(
        self, base: Vector, sent: Sequence[Sent], rate: float, beta1: float, beta2: float, tau: float
    ) -> tuple[Vector, Optimizer]:
        """The next model, and the memory after it."""
        delta = mean(base, sent) - base
        if self.rule == "fedavgm":
            m = beta1 * self.m + delta
            return base + rate * m, Optimizer(self.rule, m, self.v)
        m = beta1 * self.m + (1 - beta1) * delta
        v = {
            "fedadagrad": self.v + delta**2,
            "fedyogi": self.v - (1 - beta2) * delta**2 * np.sign(self.v - delta**2),
            "fedadam": beta2 * self.v + (1 - beta2) * delta**2,
        }[self.rule]
        return base + rate * m / (np.sqrt(v) + tau), Optimizer(self.rule, m, v)
