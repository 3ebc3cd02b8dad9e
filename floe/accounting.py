"""What the rounds of a plan with privacy = "device" cost, all together. Pure; asks dp-accounting, which is an extra.

T rounds with the noise multipliers z_i are one Gaussian mechanism with (sum z_i^-2)^(-1/2) (Dong, Roth & Su 2019,
arXiv:1905.02383, Corollary 3.3), whose epsilon is exact (Balle & Wang 2018, arXiv:1805.06530). Nothing is taken off for
devices that are not selected or not there: the selection is public, and whether a device is there is not chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

from floe.errors import ConfigError
from floe.plan import Plan
from floe.privacy import over_budget, require

ACCOUNTANT = "gaussian"


def noise_of(plan: Plan) -> float:
    """The noise multiplier of a plan: its own, or that with which `privacy_rounds` rounds cost its epsilon."""
    if plan.noise_multiplier:
        return plan.noise_multiplier
    return _noise_for(plan.epsilon, plan.delta, plan.privacy_rounds)


@cache
def _noise_for(epsilon: float, delta: float, rounds: int) -> float:
    import dp_accounting

    return float(dp_accounting.get_sigma_gaussian(epsilon, delta) * math.sqrt(rounds) * (1 + 1e-9))


def together(noise: float, rounds: int) -> float:
    """The noise multiplier of one round that costs what `rounds` rounds with `noise` do."""
    return noise / math.sqrt(rounds)


def epsilon_of(noises: Sequence[float], delta: float) -> float:
    """Epsilon at `delta` of rounds with these noise multipliers; 0 of none."""
    import dp_accounting

    if not noises:
        return 0.0
    return float(dp_accounting.get_epsilon_gaussian(sum(noise**-2 for noise in noises) ** -0.5, delta))


def spent_with(plan: Plan, before: Sequence[float]) -> tuple[float, str]:
    """Epsilon after one more round of a plan, and why that is too much, in words; empty if it is not."""
    epsilon = epsilon_of([*before, noise_of(plan)], plan.delta)
    over = bool(plan.epsilon) and epsilon > plan.epsilon
    return epsilon, over_budget(epsilon, plan.epsilon, "device", plan.delta, ACCOUNTANT) if over else ""


def predicted(plan: Plan, rounds: int) -> float:
    """Epsilon after so many rounds of a plan, where none was before."""
    return epsilon_of([together(noise_of(plan), rounds)], plan.delta)


def unaffordable(plan: Plan) -> Iterator[str]:
    """What `check_affordable` raises, in words."""
    try:
        check_affordable(plan)
    except ConfigError as error:
        yield str(error)


def check_affordable(plan: Plan) -> None:
    """Whether the first round of a plan is within its budget, and the extra is there. Raises `ConfigError`.

    Of a plan that `floe.soundness.faults` has no fault in.
    """
    if plan.privacy != "device":
        return
    require("device")
    epsilon, over = spent_with(plan, [])
    if over:
        raise ConfigError(
            f"[plan] one round with noise_multiplier = {plan.noise_multiplier:g} costs epsilon {epsilon:.2f}, more "
            f"than epsilon = {plan.epsilon:g}: raise either"
        )
