"""Tiny devices to train on."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.data.features import Features
from floe.schema import Schema


@pytest.fixture
def table() -> Features:
    """Forty rows of three features; label 1 (a quarter of the rows) lies far from the normal ones."""
    rng = np.random.default_rng(1)
    y = np.arange(40) % 4 == 3
    x = rng.normal(size=(40, 3)) + 8.0 * y[:, None]
    x[:, 2] = x[:, 0] + x[:, 1]
    return Features(
        x[:28].astype(np.float32),
        y[:28].astype(np.int64),
        x[28:].astype(np.float32),
        y[28:].astype(np.int64),
        Schema((3,), 2),
    )


@pytest.fixture
def images() -> Features:
    """Sixteen 8x8 images of two classes."""
    rng = np.random.default_rng(2)
    y = np.arange(16, dtype=np.int64) % 2
    x = rng.random((16, 1, 8, 8)).astype(np.float32)
    return Features(x[:12], y[:12], x[12:], y[12:], Schema((1, 8, 8), 2))
