"""Both accountants against each other, and against what others have published; what rounds of devices cost."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import dp_accounting
import msgspec
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants.analysis.rdp import compute_rdp

from edge_client import privacy
from edge_client.ledger import Spent
from floe.accounting import check_affordable, epsilon_of, noise_of, spent_with, together
from floe.errors import ConfigError
from floe.plan import Plan

PLAN = Plan(scaling="none", privacy="device", noise_multiplier=1.0)


def google(history: list[Spent], delta: float) -> float:
    accountant = RdpAccountant(privacy.ORDERS)
    for one in history:
        event = dp_accounting.GaussianDpEvent(one.noise)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(one.rate, event), one.steps)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    "history",
    [
        [Spent(1.1, 0.01, 1000)],
        [Spent(0.7, 0.1, 300)],
        [Spent(4.0, 0.25, 50)],
        [Spent(1.0, 1.0, 20)],
        [Spent(20.0, 0.002, 5000)],
        [Spent(1.0, 0.05, 200), Spent(2.0, 0.1, 100)],
    ],
    ids=str,
)
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_opacus_and_dp_accounting_agree_on_dp_sgd(history: list[Spent], delta: float) -> None:
    """Both compose Rényi divergences of the same orders and convert them alike: to a ten thousandth."""
    assert privacy.epsilon_of(history, delta) == pytest.approx(google(history, delta), rel=1e-4)


def test_dp_sgd_costs_what_was_published() -> None:
    """Abadi et al. 2016, section 3.2: q = 0.01, noise 4, 10,000 steps, delta 1e-5: epsilon 1.26, by the conversion of
    their Theorem 2. That of Balle et al. 2020, which both packages have now, gives less.
    """
    orders = list(range(2, 34))
    rdp = compute_rdp(q=0.01, noise_multiplier=4.0, steps=10_000, orders=orders)
    theirs = min(one - math.log(1e-5) / (order - 1) for one, order in zip(rdp, orders, strict=True))
    assert theirs == pytest.approx(1.26, abs=0.01)
    assert 0.9 < privacy.epsilon_of([Spent(4.0, 0.01, 10_000)], 1e-5) < theirs


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (4.0, 50)])
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_rounds_of_devices_cost_what_both_general_accountants_allow(noise: float, rounds: int, delta: float) -> None:
    """Exact, so never above theirs; privacy loss distributions come within a thousandth, Rényi within a fifth."""
    epsilon = epsilon_of([noise] * rounds, delta)
    of = [PLDAccountant(), RdpAccountant()]
    for accountant in of:
        accountant.compose(dp_accounting.GaussianDpEvent(noise), rounds)
    assert epsilon == pytest.approx(of[0].get_epsilon(delta), rel=1e-3)
    assert epsilon < of[1].get_epsilon(delta) < 1.2 * epsilon


def test_ten_devices_at_noise_1_for_50_rounds_spend_what_the_documentation_says() -> None:
    assert epsilon_of([1.0] * 50, 1e-5) == pytest.approx(54.37, abs=0.01)


def test_rounds_with_different_noise_are_composed() -> None:
    accountant = PLDAccountant()
    for noise in (2.0, 3.0, 6.0):
        accountant.compose(dp_accounting.GaussianDpEvent(noise))
    assert epsilon_of([2.0, 3.0, 6.0], 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


def test_nothing_spent_is_nothing() -> None:
    assert epsilon_of([], 1e-5) == 0.0


def test_the_noise_for_an_epsilon_lasts_as_many_rounds_as_were_asked_and_no_more() -> None:
    plan = msgspec.structs.replace(PLAN, noise_multiplier=0.0, epsilon=8.0, privacy_rounds=30)
    noise = noise_of(plan)
    assert spent_with(plan, [noise] * 29)[0] == pytest.approx(8.0, abs=1e-6)
    assert spent_with(plan, [noise] * 29)[1] == ""
    assert spent_with(plan, [noise] * 30)[1].startswith("privacy budget spent: epsilon 8.")


def test_the_noise_for_an_epsilon_is_solved_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = msgspec.structs.replace(PLAN, noise_multiplier=0.0, epsilon=7.77, privacy_rounds=31)
    noise = noise_of(plan)
    monkeypatch.setattr(dp_accounting, "get_sigma_gaussian", None)
    assert noise_of(msgspec.structs.replace(plan, epochs=5)) == noise


def test_many_rounds_with_one_noise_are_counted_as_one() -> None:
    apart = epsilon_of([1.5] * 20 + [2.0] * 30, 1e-5)
    assert epsilon_of([together(1.5, 20), together(2.0, 30)], 1e-5) == pytest.approx(apart, rel=1e-9)


def test_without_a_budget_rounds_go_on() -> None:
    epsilon, over = spent_with(PLAN, [1.0] * 100)
    assert (math.isfinite(epsilon), over) == (True, "")


def test_a_round_that_costs_more_than_the_budget_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"one round with noise_multiplier = 1 costs epsilon 4\.38, more than"):
        check_affordable(msgspec.structs.replace(PLAN, epsilon=2.0))


def test_without_dp_accounting_the_plan_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigError, match=r"needs dp-accounting, which is absent: pip install 'floe\[dp\]'"):
        check_affordable(PLAN)
    check_affordable(msgspec.structs.replace(PLAN, privacy="none"))


def test_the_table_of_the_documentation_is_what_is_computed() -> None:
    text = (Path(__file__).parents[3] / "docs" / "privacy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    for noise, *cells in rows:
        assert cells == [f"{epsilon_of([float(noise)] * rounds, 1e-5):.2f}" for rounds in (1, 10, 50, 200)]
