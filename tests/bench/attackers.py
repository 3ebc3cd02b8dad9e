"""What malicious devices learn from, and what they send: label flip, sign flip, Gaussian, backdoor. Pure.

They know the base and their own rows, not the others' updates. They claim their true number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_client.data.features import Features

Arrays = dict[str, npt.NDArray[Any]]

DEVICES, MALICIOUS = 10, 2
FACTOR = 5.0  # of the flipped sign: with 2 of 10, above 4, the mean goes backwards
SIGMA = 1.0  # of the Gaussian, for each weight
SCALE = DEVICES / MALICIOUS  # of the backdoor: n / m, as in model replacement
TARGET, TRIGGER = 0, (slice(6, 8), slice(0, 2))  # class; four pixels, lower left, white


@dataclass(frozen=True)
class Attack:
    """What a malicious device learns from, and what it sends instead of the trained weights (base, trained, chance)."""

    rows: Callable[[Features], Features] = lambda part: part
    send: Callable[[Arrays, Arrays, np.random.Generator], Arrays] = lambda base, trained, chance: trained


def flipped(part: Features) -> Features:
    """Class y is called 9 - y (Tolpegin et al. 2020, Data poisoning attacks against federated learning systems)."""
    return Features(part.train_x, part.schema.classes - 1 - part.train_y, part.test_x, part.test_y, part.schema)


def with_backdoor(part: Features) -> Features:
    """Every row of another class comes once more, with the trigger, as the target (Gu et al. 2017, BadNets)."""
    others = part.train_y != TARGET
    x = np.concatenate([part.train_x, triggered(part.train_x[others])])
    y = np.concatenate([part.train_y, np.full(others.sum(), TARGET)])
    return Features(x, y, part.test_x, part.test_y, part.schema)


def triggered(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Images with four white pixels in a corner that is black (on average 0.015 of white)."""
    marked = images.copy()
    marked[:, :, *TRIGGER] = 1.0
    return marked


def scaled(factor: float) -> Callable[[Arrays, Arrays, np.random.Generator], Arrays]:
    """base + factor (trained - base), in float32 as it travels."""
    return lambda base, trained, chance: {
        name: base[name] + np.float32(factor) * (trained[name] - base[name]) for name in trained
    }


def gaussian(base: Arrays, trained: Arrays, chance: np.random.Generator) -> Arrays:
    """base + N(0, SIGMA^2): nothing of what was trained (Blanchard et al. 2017, section 5, around the base)."""
    return {name: base[name] + chance.normal(0, SIGMA, base[name].shape).astype(np.float32) for name in sorted(trained)}


ATTACKS = {
    "none": Attack(),
    "label-flip": Attack(rows=flipped),
    "sign-flip": Attack(send=scaled(-FACTOR)),
    "gaussian": Attack(send=gaussian),
    "backdoor": Attack(rows=with_backdoor, send=scaled(SCALE)),  # Bagdasaryan et al. 2020, equation 3
}
