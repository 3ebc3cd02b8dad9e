"""Which rows of N-BaIoT the benchmark `nbaiot` learns from, chooses settings by, and measures on at last.

To choose by: a fifth of every device's benign training rows (by the seed), which are then not trained on, and a fifth
of its attack rows (of every type, always the same), which are left out of the final test. The benign test rows are
measured on in the final test only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_client.data.features import Features
from edge_client.data.natural import NBAIOT, devices

SHARE = 0.2  # of benign training rows and of attack rows, to choose on
ATTACKS_SEED = 1000  # which attack rows those are

Parts = dict[str, Features]


def parts(choosing: int | None) -> Parts:
    """Every device's rows: of a seed to choose by, or those of the final test."""
    return {
        name: _chosen_on(features, kinds, choosing) if choosing is not None else _final(features, kinds)
        for name, features, kinds in _devices()
    }


def _devices() -> Iterator[tuple[str, Features, npt.NDArray[np.uint8]]]:
    """Name, features, and the type of every attack row, which come last of the test rows and in this order."""
    for name, (features, document) in devices(NBAIOT).items():
        with np.load(Path(os.environ["FLOE_DATA"]) / NBAIOT / str(document.origin["file"])) as file:
            yield name, features, file["attack_type"]


def set_apart(kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which attack rows are there to choose on: `SHARE` of every type."""
    rng = np.random.default_rng(ATTACKS_SEED)
    apart = np.zeros(len(kinds), bool)
    for kind in np.unique(kinds):
        rows = rng.permutation(np.flatnonzero(kinds == kind))
        apart[rows[: round(SHARE * len(rows))]] = True
    return apart


def _final(features: Features, kinds: npt.NDArray[np.uint8]) -> Features:
    benign = len(features.test_y) - len(kinds)
    kept = np.concatenate([np.ones(benign, bool), ~set_apart(kinds)])
    return Features(features.train_x, features.train_y, features.test_x[kept], features.test_y[kept], features.schema)


def _chosen_on(features: Features, kinds: npt.NDArray[np.uint8], seed: int) -> Features:
    order = np.random.default_rng(seed).permutation(len(features.train_x))
    held, rest = np.split(order, [len(order) // round(1 / SHARE)])
    attacks = features.test_x[-len(kinds) :][set_apart(kinds)]
    test_x = np.concatenate([features.train_x[held], attacks])
    test_y = np.repeat([0, 1], [len(held), len(attacks)])
    return Features(features.train_x[rest], features.train_y[rest], test_x, test_y, features.schema)


def few(features: Features) -> Features:
    """With ten test rows: what is measured while training is not used here."""
    x, y = features.test_x[:10], features.test_y[:10]
    return Features(features.train_x, features.train_y, x, y, features.schema)
