"""What private training costs before it begins: noise, rate, steps, and epsilon over all rounds. Imports torch.

Epsilon is that of the Poisson-sampled Gaussian mechanism in Rényi differential privacy (Mironov, Talwar & Zhang 2019,
arXiv:1908.10530), composed and converted by Opacus. Two sets of rows are neighbours if one has one row more.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier

from edge_client.ledger import Ledger, Spent
from floe.errors import DataError
from floe.plan import Plan
from floe.privacy import over_budget
from floe.report import Privacy

ACCOUNTANT = "rdp"
# Whole orders are sums of finitely many terms. Between them Opacus cuts a series off, which does not always converge
# below 2: there dp-accounting leaves such orders out, and Opacus says less than that (28.4 for 29.0, noise 0.7).
ORDERS = [*range(2, 65), 80, 96, 128, 192, 256, 512, 1024]


@dataclass(frozen=True)
class Terms:
    """How a device trains in a round: `spent.steps` steps on some `batch` rows each; the noise is drawn from `key`,
    of 16 bytes.
    """

    spent: Spent
    batch: int
    key: bytes
    privacy: Privacy


def check_delta(plan: Plan, rows: int) -> None:
    """Raises `DataError` for a delta at which nothing is promised to a single one of so many rows."""
    if plan.delta * rows >= 1:
        raise DataError(
            f"plan.delta = {plan.delta:g} is not below 1 / {rows} (the rows): giving a whole row away would count as "
            f"private; set delta to {_tenth(rows):g} or less, the same for all devices"
        )


def agree(plan: Plan, rows: int, ledger: Ledger, work: str) -> Terms:
    """Book a round's training and say how it is done: when this returns it is counted, on disk, whatever follows.

    `work` names all that the result depends on: the same again is not counted again, and has the same noise. Raises
    `DataError` where the plan is not private, or its budget is spent; `StoreError`.
    """
    check_delta(plan, rows)
    batch = min(plan.batch_size or rows, rows)
    target, spent = _round(plan, rows, batch, ledger.noise)
    epsilon = epsilon_of(ledger.after(work, spent), plan.delta)
    budget = min([budget for budget in (plan.epsilon, ledger.limit) if budget], default=math.inf)
    if epsilon > budget:
        raise DataError(over_budget(epsilon, budget, "example", plan.delta, ACCOUNTANT))
    ledger.book(work, spent, target)
    return Terms(spent, batch, ledger.key_of(work), Privacy(epsilon, plan.delta, ACCOUNTANT))


def predicted(plan: Plan, rows: int, rounds: int) -> float:
    """Epsilon of so many rounds on rows of which nothing was spent before. Raises `DataError`, as `agree` does."""
    _, one = _round(plan, rows, min(plan.batch_size or rows, rows), lambda target: 0.0)
    return epsilon_of([Spent(one.noise, one.rate, one.steps * rounds)], plan.delta)


def epsilon_of(history: Sequence[Spent], delta: float) -> float:
    """Epsilon at `delta` of all that was spent. Raises `DataError` where there is so little noise that it has none."""
    accountant = RDPAccountant()
    accountant.history = [(spent.noise, spent.rate, spent.steps) for spent in history]
    with _quiet():
        epsilon = accountant.get_epsilon(delta=delta, alphas=ORDERS)
    if not math.isfinite(epsilon) or epsilon > 1e6:
        raise DataError(f"noise_multiplier {min(spent.noise for spent in history):g} is too small to promise anything")
    return max(float(epsilon), 0.0)


def _round(plan: Plan, rows: int, batch: int, kept: Callable[[str], float]) -> tuple[str, Spent]:
    """What a round costs, and for which target its noise was found; `kept` knows what was found before."""
    rate, steps = batch / rows, math.ceil(rows / batch)
    target, noise = _noise(plan, rate, steps, kept)
    return target, Spent(noise, rate, plan.epochs * steps)


def _noise(plan: Plan, rate: float, steps: int, kept: Callable[[str], float]) -> tuple[str, float]:
    """The plan's noise, or the one that was found for its epsilon: once, so that later rounds have the same."""
    if plan.noise_multiplier:
        return "plan", plan.noise_multiplier
    target = f"{plan.epsilon} {plan.delta} {plan.privacy_rounds} {plan.epochs} {plan.batch_size}"
    return target, kept(target) or _found(plan, rate, steps * plan.epochs * plan.privacy_rounds)


def _found(plan: Plan, rate: float, steps: int) -> float:
    try:
        with _quiet():
            return float(
                get_noise_multiplier(
                    target_epsilon=plan.epsilon, target_delta=plan.delta, sample_rate=rate, steps=steps,
                    epsilon_tolerance=min(0.01, plan.epsilon / 100), alphas=ORDERS,
                )
            )  # fmt: skip
    except ValueError:
        raise DataError(
            f"no noise keeps epsilon below {plan.epsilon:g} (delta {plan.delta:g}) for {steps} steps with a sampling "
            f"rate of {rate:g}: raise plan.epsilon, or lower privacy_rounds, epochs or batch_size"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus warns where another order would give a smaller epsilon: the larger one holds too."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _tenth(rows: int) -> float:
    return float(10.0 ** math.floor(math.log10(0.1 / rows)))
