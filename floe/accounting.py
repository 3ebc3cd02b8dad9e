"""What the rounds of a plan with privacy = "device" cost, all together. Pure; asks dp-accounting, which is an extra.

T rounds with the noise multipliers z_i are one Gaussian mechanism with (sum z_i^-2)^(-1/2) (Dong, Roth & Su 2019,
arXiv:1905.02383, Corollary 3.3), whose epsilon is exact (Balle & Wang 2018, arXiv:1805.06530). Nothing is taken off for
devices that are not selected or not there: the selection is public, and whether a device is there is not chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from floe.errors import ConfigError
from floe.plan import Plan
from floe.privacy import over_budget, require

ACCOUNTANT = "gaussian"


def noise_of(plan: Plan) -> float:
    """The noise multiplier of a plan: its own, or that with which `privacy_rounds` rounds cost its epsilon."""
    if plan.noise_multiplier:
        return plan.noise_multiplier
    import dp_accounting

    one = dp_accounting.get_sigma_gaussian(plan.epsilon, plan.delta)
    return float(one * math.sqrt(plan.privacy_rounds) * (1 + 1e-9))


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


def check_affordable(plan: Plan) -> None:
    """Whether the first round of a plan is within its budget, and the extra is there. Raises `ConfigError`."""
    if plan.privacy != "device":
        return
    require("device")
    epsilon, over = spent_with(plan, [])
    if over:
        raise ConfigError(
            f"[plan] one round with noise_multiplier = {plan.noise_multiplier:g} costs epsilon {epsilon:.2f}, more "
            f"than epsilon = {plan.epsilon:g}: raise either"
        )
