"""What several tests of the data side compare with."""

from __future__ import annotations

import numpy as np

from edge_client.data.features import Features


def same(a: Features, b: Features) -> bool:
    """Equal arrays (values and dtypes) and equal schema."""
    names = ("train_x", "train_y", "test_x", "test_y")
    arrays = [(getattr(a, name), getattr(b, name)) for name in names]
    return a.schema == b.schema and all(np.array_equal(p, q) and p.dtype == q.dtype for p, q in arrays)
