"""Features to play with."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.data.arrays import build
from edge_client.data.features import Features


@pytest.fixture
def small() -> Features:
    """40 train and 20 test rows of 3 features, two classes."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = np.arange(60) % 2
    return build(x[:40], y[:40], x[40:], y[40:])
