"""One data set over many devices: features -> features of each client. Writes feature folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_client.data import folder
from edge_client.data.document import Document, Origin
from edge_client.data.features import Features
from edge_client.data.partition import How, follow, partition, sample, with_normal_rows
from floe.errors import DataError


def split(
    features: Features, clients: int, how: How, alpha: float, seed: int, rows: int | None = None
) -> list[Features]:
    """Train and test rows of every client, disjoint and complete; the schema stays.

    `rows` first thins the data to so many training rows, and the test rows in the same ratio, classes in proportion.
    Test rows follow the training rows (`partition.follow`); of two classes every client has normal rows to learn from.
    Raises `DataError` when there are too few rows.
    """
    if rows is not None:
        features = _thin(features, rows, seed)
    parts = partition(features.train_y, clients, how, alpha, seed)
    if features.schema.classes == 2:
        parts = with_normal_rows(parts, features.train_y, seed)
    tests = follow(features.test_y, features.train_y, parts, seed)
    x, y, test_x, test_y = features.train_x, features.train_y, features.test_x, features.test_y
    return [
        Features(x[own], y[own], test_x[test], test_y[test], features.schema)
        for own, test in zip(parts, tests, strict=True)
    ]


def _thin(features: Features, rows: int, seed: int) -> Features:
    if rows < 1:
        raise DataError(f"--rows {rows}: at least 1")
    train = sample(features.train_y, rows, seed)
    share = len(train) / len(features.train_y)
    test = sample(features.test_y, max(1, round(share * len(features.test_y))), seed)
    x, y, test_x, test_y = features.train_x, features.train_y, features.test_x, features.test_y
    return Features(x[train], y[train], test_x[test], test_y[test], features.schema)


def write(parts: Sequence[Features], out: Path, origin: Origin) -> list[Path]:
    """DIR/device-1 ... device-N, each a feature folder whose schema.json says where it comes from.

    Raises `DataError` when the folder holds devices of another split, which a federation would take for its own.
    """
    paths = [out / f"device-{i}" for i in range(1, len(parts) + 1)]
    others = sorted(path.name for path in out.glob("device-*") if path not in paths)
    if others:
        raise DataError(f"{out}: holds {', '.join(others)} of another split; remove them or take another --out")
    for path, part in zip(paths, parts, strict=True):
        description = Document(schema=part.schema, origin={**origin, "device": path.name})
        folder.write(path, part, description)
    return paths
