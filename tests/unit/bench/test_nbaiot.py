"""The benchmark `nbaiot` on rows that are drawn: its common threshold is the one that a federation agrees on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import nbaiot
import numpy as np
import pytest
from anomaly import agreed, judged
from msgspec.structs import replace

from edge_client.data.features import Features
from floe.schema import Schema

DEVICES = {"a": (60, 1.0), "b": (25, 3.0)}  # rows, and how large their features are


def _features(rows: int, size: float) -> Features:
    x = np.random.default_rng(rows).normal(size=(rows, 6)).astype(np.float32) * np.float32(size)
    y = np.zeros(rows, np.int64)
    return Features(x, y, x, y, Schema(shape=(6,), classes=2))


@pytest.mark.parametrize("personal", [(), ("layers.2.*",)])
def test_the_common_threshold_is_the_one_that_the_phase_of_a_federation_agrees_on(
    tmp_path: Path, personal: tuple[str, ...]
) -> None:
    plan = replace(nbaiot.PLAN, hidden=(3,), batch_size=16, personal=personal)
    found = {name: _features(*drawn) for name, drawn in DEVICES.items()}
    models = nbaiot.simulated(tmp_path, found, plan, 2)
    with closing(sqlite3.connect(tmp_path / "log" / "floe.sqlite")) as log:
        ((told,),) = log.execute("SELECT threshold FROM rounds WHERE threshold IS NOT NULL").fetchall()
    every = {name: nbaiot.errors(found[name], plan, base) for name, base in models.items()}
    assert agreed([train for train, _ in every.values()], plan.threshold_quantile) == told
    benign = {name: np.arange(len(test)) > 0 for name, (_, test) in every.items()}
    rates = judged(every, benign, plan.threshold_quantile)
    assert {name: rates[name]["tpr_federated"] for name in every} == {
        name: float((every[name][1][1:] > told).mean()) for name in every
    }
