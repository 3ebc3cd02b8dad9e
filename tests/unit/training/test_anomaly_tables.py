"""What the benchmarks say of anomaly detectors, worked by hand, and the tables that are made of stored lines."""

from __future__ import annotations

import numpy as np
import pytest
from anomaly import HEADS, MODES, Line, agreed, judged, measures, table
from insurance_bank import table as gains


def test_rates_and_auc_are_those_worked_by_hand() -> None:
    errors = np.array([0.1, 0.2, 0.3, 0.6, 0.5, 0.7, 0.8, 0.9])
    attack = np.array([False] * 4 + [True] * 4)
    found = measures(errors, attack, own=0.25, common=0.65)
    assert found["auc"] == 15 / 16  # of 16 pairs one is the wrong way round: 0.6 and 0.5
    assert found["fpr_at_tpr99"] == 0.25  # all four attacks are found from 0.5 up, and 0.6 with them
    assert (found["fpr"], found["tpr"]) == (0.5, 1.0)
    assert (found["fpr_federated"], found["tpr_federated"]) == (0.0, 0.75)


def test_of_a_hundred_attacks_one_may_be_missed() -> None:
    errors = np.array([0.5, *np.arange(100) / 100])
    attack = np.arange(101) > 0
    assert measures(errors, attack, 0.0, 0.0)["fpr_at_tpr99"] == 1.0
    errors[1] = -1.0
    errors[0] = 0.005  # below the second smallest attack, above the smallest
    assert measures(errors, attack, 0.0, 0.0)["fpr_at_tpr99"] == 0.0


def test_the_common_threshold_is_a_quantile_of_the_histograms_of_all_devices_errors() -> None:
    small, large = np.full(3, 2.0**-3), np.full(2, 2.0)  # where bins begin that are 2^(1/8) wide
    median = 2 ** (-3 + 5 / 6 / 8)  # the third of the three small ones
    assert agreed([small, large], 0.5) == pytest.approx(median)
    test, attack = np.array([0.13, 0.5, 9.0]), np.array([False, False, True])
    found = judged({"a": (small, test), "b": (large, test)}, {"a": attack, "b": attack}, 0.5)
    assert [found[device]["fpr"] for device in "ab"] == [1.0, 0.0]  # own thresholds: 1/8 and 2
    assert [found[device]["fpr_federated"] for device in "ab"] == [0.5, 0.5]  # the median is 0.134


def _line(mode: str, seed: int, device: str, auc: float) -> Line:
    rates = dict.fromkeys(("fpr_at_tpr99", "fpr", "tpr", "fpr_federated", "tpr_federated"), 0.25)
    return {"mode": mode, "seed": seed, "device": device, "auc": auc, **rates}


def test_the_tables_show_every_seed_the_mean_and_every_device() -> None:
    lines = [_line(mode, seed, name, 0.5 + seed / 10) for mode in MODES for seed in (0, 1) for name in ("a", "b")]
    overall, by_device, thresholds = table(lines).strip().split("\n\n")
    assert overall.splitlines()[0] == f"| training | seed | {' | '.join(HEADS)} |"
    assert "| local | 1 | 0.6000 | 0.2500 |" in overall
    assert "| **local** | mean | 0.5500 | 0.2500 |" in overall
    assert "| **federated, then 5 epochs at home** | mean | 0.5500 |" in overall
    assert by_device.splitlines()[2].startswith("| a | 0.5500 | 0.2500 | 0.5500 |")
    assert len(thresholds.splitlines()) == 4


def test_a_gain_is_the_difference_to_the_client_alone() -> None:
    lines = [{"client": "bank", "seed": seed, "alone": 0.5, "own": 0.5 + seed / 10, "joined": 0.4} for seed in (1, 3)]
    rows = gains(lines).splitlines()
    assert rows[2] == "| bank | 1 | 0.5000 | 0.6000 | +0.1000 | 0.4000 | -0.1000 |"
    assert rows[4] == "| **bank** | mean | 0.5000 | 0.7000 | +0.2000 | 0.4000 | -0.1000 |"
    assert [float(cell) for cell in rows[5].split("|")[4:6]] == [pytest.approx(0.1), pytest.approx(0.1)]
