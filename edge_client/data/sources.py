"""Data sets by name, for demos and benchmarks. Reads scikit-learn's, FLOE_DATA, or a seeded generator; no network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from edge_client.data.arrays import Raw, build, to_x, to_y
from edge_client.data.features import Features
from edge_client.data.images import FETCH
from edge_client.data.load import load
from edge_client.data.partition import stratified
from floe.errors import DataError

TEST_SHARE = 0.2
FOLDERS = {"mnist": ("mnist",), "cifar10": ("cifar10", "cifar-10-batches-bin", "cifar10_subset")}
SYNTHETIC_ROWS = 2000
SYNTHETIC_FEATURES = 16
SYNTHETIC_FACTORS = 4
SYNTHETIC_ANOMALIES = 0.1


def source(name: str, seed: int) -> Features:
    """One of `NAMES`. The seed decides the split, and for synthetic the rows; mnist and cifar10 have their own split.

    breast-cancer (30 named features; benign 0, malignant 1) and digits ((1,8,8) in 0..1) are scikit-learn's. mnist
    and cifar10 are looked for in the folder FLOE_DATA. Raises `DataError` when data or scikit-learn are absent.
    """
    if name not in SOURCES:
        raise DataError(f"data {name!r}: no such data set; one of {', '.join(NAMES)}, or a folder")
    return SOURCES[name](seed)


def _breast_cancer(seed: int) -> Features:
    found = _sklearn().load_breast_cancer()
    names = tuple(str(name) for name in found.feature_names)
    return _divide(found.data, 1 - found.target, seed, names)  # scikit-learn's 1 is benign


def _digits(seed: int) -> Features:
    found = _sklearn().load_digits()
    return _divide(found.images[:, np.newaxis] / 16, found.target, seed)


def _synthetic(seed: int) -> Features:
    """Normal rows lie near a plane of few factors; anomalies spread as widely, half of them only just off the plane."""
    rng = np.random.default_rng(seed)
    y = (rng.random(SYNTHETIC_ROWS) < SYNTHETIC_ANOMALIES).astype(np.int64)
    mixing = rng.normal(size=(SYNTHETIC_FACTORS, SYNTHETIC_FEATURES)) / np.sqrt(SYNTHETIC_FACTORS)
    plane = rng.normal(size=(SYNTHETIC_ROWS, SYNTHETIC_FACTORS)) @ mixing
    noise = np.where(y == 1, rng.choice([0.45, 0.9], SYNTHETIC_ROWS), 0.3)[:, np.newaxis]
    x = plane + noise * rng.normal(size=plane.shape)
    return _divide(x, y, seed, tuple(f"x{i}" for i in range(SYNTHETIC_FEATURES)))


def _divide(x: Raw, y: Raw, seed: int, names: tuple[str, ...] = ()) -> Features:
    train, test = stratified(y, TEST_SHARE, seed)
    rows, labels = to_x(x, "x"), to_y(y, "y")
    return build(rows[train], labels[train], rows[test], labels[test], names)


def _sklearn() -> ModuleType:
    try:
        from sklearn import datasets
    except ImportError:
        raise DataError("this data set comes with scikit-learn, which is absent: pip install floe[demo]") from None
    return datasets  # type: ignore[no-any-return]


def _from_floe_data(name: str) -> Features:
    root = os.environ.get("FLOE_DATA")
    if not root:
        raise DataError(
            f"data {name!r}: set FLOE_DATA to the folder that holds {_or(FOLDERS[name])}; {FETCH.format(name)}"
        )
    for folder in FOLDERS[name]:
        if (Path(root) / folder).is_dir():
            return load(folder, {}, Path(root))
    raise DataError(
        f"data {name!r}: FLOE_DATA is {root}, which has no folder {_or(FOLDERS[name])}; {FETCH.format(name)}"
    )


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(names)


SOURCES: dict[str, Callable[[int], Features]] = {
    "breast-cancer": _breast_cancer,
    "digits": _digits,
    "synthetic": _synthetic,
    "mnist": lambda seed: _from_floe_data("mnist"),
    "cifar10": lambda seed: _from_floe_data("cifar10"),
}
NAMES = tuple(SOURCES)
