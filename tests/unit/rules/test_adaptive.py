"""Optimizers of the aggregator: worked by hand, against torch's, and what they remember."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.updates import base_of, made, model, result, written

from floe import weights
from floe.adaptive import RULES
from floe.aggregate import next_model
from floe.mean import PIECE
from floe.plan import Plan

BY_HAND = {"server_learning_rate": 0.5, "server_momentum": 0.5, "server_beta2": 0.75, "server_tau": 0.5}


def plan(rule: str, **others: float) -> Plan:
    return Plan(rule=rule, **{**BY_HAND, **others})  # type: ignore[arg-type]


def rounds(plan_: Plan, folder: Path, *deltas: float) -> list[float]:
    """A model of one number after each of several rounds, from 0, when the mean of two updates is so much above it."""
    found, at = [], 0.0
    for delta in deltas:
        updates = written(folder, [[at + delta - 1], [at + delta + 3]], [3, 1])
        made(plan_, folder, updates, base_of(folder, [at]))
        at = float(result(folder)[0])
        found.append(at)
    return found


def test_fedavgm_by_hand(tmp_path: Path) -> None:
    # v: 4, 0.5 * 4 - 2 = 0, 0 + 8; w: 0.5 * 4, + 0, + 0.5 * 8
    assert rounds(plan("fedavgm"), tmp_path, 4, -2, 8) == [2.0, 2.0, 6.0]


def test_fedadagrad_by_hand(tmp_path: Path) -> None:
    # v: 0.25 + 16 = 16.25, + 4 = 20.25; m: 2, 0.5 * 2 + 0.5 * 2 = 2
    first = 0.5 * 2 / (np.sqrt(16.25) + 0.5)
    assert rounds(plan("fedadagrad"), tmp_path, 4, 2) == pytest.approx([first, first + 0.5 * 2 / (4.5 + 0.5)])


def test_fedadam_by_hand(tmp_path: Path) -> None:
    # v: 0.75 * 0.25 + 0.25 * 16 = 4.1875, 0.75 * 4.1875 + 0.25 * 4 = 4.140625; m: 2, 2
    first = 1 / (np.sqrt(4.1875) + 0.5)
    assert rounds(plan("fedadam"), tmp_path, 4, 2) == pytest.approx([first, first + 1 / (np.sqrt(4.140625) + 0.5)])


def test_fedyogi_by_hand(tmp_path: Path) -> None:
    # v: 0.25 - 0.25 * 16 * sign(0.25 - 16) = 4.25, 4.25 - 0.25 * 1 * sign(4.25 - 1) = 4; m: 2, 1 + 0.5 = 1.5
    first = 1 / (np.sqrt(4.25) + 0.5)
    assert rounds(plan("fedyogi"), tmp_path, 4, 1) == pytest.approx([first, first + 0.75 / 2.5])


@pytest.mark.parametrize("rule", ["fedavgm", "fedadagrad"])
def test_agreement_with_torch_over_ten_rounds(tmp_path: Path, rule: str) -> None:
    """torch's SGD with momentum, and its Adagrad from tau^2: the gradient is what the updates would lead away from."""
    rng, beta = np.random.default_rng(5), 0.9 if rule == "fedavgm" else 0.0
    there = plan(rule, server_momentum=beta)
    x = torch.tensor(rng.normal(size=(3, 4)).astype("<f4"), dtype=torch.float64, requires_grad=True)
    torchs: torch.optim.Optimizer = (
        torch.optim.SGD([x], lr=0.5, momentum=beta)
        if rule == "fedavgm"
        else torch.optim.Adagrad([x], lr=0.5, initial_accumulator_value=0.25, eps=0.5)
    )
    model_ = x.detach().numpy().astype("<f4")
    for _ in range(10):
        steps = rng.normal(size=(2, 3, 4)).astype("<f4") * np.float32(0.1)
        updates = written(tmp_path, [model_ + step for step in steps], [1, 3])
        made(there, tmp_path, updates, base_of(tmp_path, model_))
        delta = ((model_ + steps[0]).astype(float) + 3 * (model_ + steps[1]).astype(float)) / 4 - model_.astype(float)
        x.grad = -torch.tensor(delta)
        torchs.step()
        model_ = result(tmp_path)
    np.testing.assert_allclose(model_, x.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_without_momentum_and_with_steps_of_one_fedavgm_is_fedavg(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [5.0, -2.0]]
    found = model(plan("fedavgm", server_learning_rate=1.0, server_momentum=0.0), tmp_path, rows, [1, 3])
    assert found == model(Plan(), tmp_path, rows, [1, 3]) == [4.0, -1.0]


@pytest.mark.parametrize("rule", RULES)
def test_the_same_round_again_gives_the_same_model_and_memory(tmp_path: Path, rule: str) -> None:
    rng = np.random.default_rng(3)
    base = base_of(tmp_path, np.zeros(2 * PIECE + 3))
    rows = [rng.normal(size=2 * PIECE + 3).astype("<f4") for _ in range(2)]
    updates = written(tmp_path, rows, [2, 5])
    first = made(plan(rule), tmp_path, updates, base)
    assert first.shares == (2 / 7, 5 / 7)
    again = [
        next_model(plan(rule), updates, base, tmp_path / "x", before=tmp_path / "after", after=tmp_path / "y")
        for _ in range(2)
    ]
    assert again[0] == again[1]
    assert again[0].memory != first.memory
    moments = weights.read(tmp_path / "y")["w"]
    assert moments.dtype == np.float64
    delta = (2 * rows[0].astype(float) + 5 * rows[1].astype(float)) / 7
    beta = 0.5
    expected = delta * (1 + beta) if rule == "fedavgm" else delta * (1 - beta) * (1 + beta)
    np.testing.assert_allclose(moments[:, 0], expected, rtol=1e-12, atol=1e-15)


def test_counters_are_those_of_fedavg(tmp_path: Path) -> None:
    for name, value in (("base", 4), ("0000", 7), ("0001", 10)):
        weights.write(tmp_path / name, {"w": np.zeros(1), "n": np.array([value])})
    updates = [
        update.__class__(tmp_path / f"{k:04}", 1) for k, update in enumerate(written(tmp_path / "x", [[0], [0]]))
    ]
    made(plan("fedadam"), tmp_path, updates, tmp_path / "base")
    assert weights.read(tmp_path / "out")["n"].tolist() == [8]
    assert list(weights.read(tmp_path / "after")) == ["w"]


def test_memory_does_not_grow_with_the_number_of_updates(tmp_path: Path) -> None:
    updates, base = written(tmp_path, [np.ones(4 * PIECE, "<f4")] * 20), base_of(tmp_path, np.ones(4 * PIECE))
    _peak(tmp_path, 3, updates, base)  # what is loaded once
    assert _peak(tmp_path, 20, updates, base) < 1.05 * _peak(tmp_path, 3, updates, base)


def _peak(folder: Path, count: int, updates: list, base: Path) -> int:  # type: ignore[type-arg]
    tracemalloc.start()
    try:
        made(plan("fedyogi"), folder, updates[:count], base)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
