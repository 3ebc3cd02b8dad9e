"""DP-FedAvg: every device's difference cut to a norm, their sum with Gaussian noise, over their public number.

McMahan et al. 2018 (arXiv:1710.06963), Algorithm 1, with equal weights and every device in every round; the norm that
follows a quantile is Andrew et al. 2021 (arXiv:1905.03871), Algorithm 1 and Theorem 1. Piece by piece in float64.

What one device sends changes the sum by the norm at most: neighbours are rounds in which a device's difference is its
own, or zero. The noise is numpy's Philox, keyed by SHA-256 from a secret: it can be drawn again by whoever has that.
It is no cryptographic generator, and float64 is no continuum (Mironov 2012).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from floe import weights
from floe.aggregate import finite
from floe.differences import Differences, factors_to
from floe.mean import Real, Update, copied

RATE = 0.2  # eta_C of Andrew et al. 2021, section 3.1
LEAST, MOST = 1e-9, 1e9  # of a norm that follows a quantile


@dataclass(frozen=True)
class Noise:
    """`multiplier` z: of the noise over the norm that a round promises, the counting of norms included. `secret`: 32
    bytes from which it is drawn, others for every round and for other updates.
    """

    multiplier: float
    secret: bytes

    def drawn(self, name: str) -> np.random.Generator:
        """Standard normal numbers for one tensor, or for the count."""
        key = hashlib.sha256(self.secret + name.encode()).digest()[:16]
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def noised_mean(
    updates: Sequence[Update], base: Path, out: Path, norm: float, noise: Noise, quantile: float = 0.0
) -> tuple[str, float]:
    """Write base + (sum_k cut_k + N(0, (z norm)^2)) / n; the SHA-256 of the file, and the norm for the next round.

    `quantile` 0: the norm stays, and z is `noise.multiplier`. Otherwise z is what is left beside the count. Tensors of
    integers are the base's. Raises `RuleError` for numbers that are not finite or too large: then `out` is not there;
    `ValueError` for updates that are not alike, `StoreError`.
    """
    told = "the noise is too large, or what it is added to: lower clip_norm or noise_multiplier"
    with finite("DP-FedAvg", told, out):
        return _made(updates, base, out, norm, noise, quantile)


def _made(
    updates: Sequence[Update], base: Path, out: Path, norm: float, noise: Noise, quantile: float
) -> tuple[str, float]:
    differences, n = Differences(updates, base), len(updates)
    norms = differences.norms()
    factors = factors_to(norm, norms)
    z, counting = shared(noise.multiplier, n) if quantile else (noise.multiplier, 0.0)
    parts = copied(base)
    for t in differences.floats:
        summed = _noised(differences.sums(t, factors), z * norm, noise.drawn(f"tensor {t.name}"))
        parts[t.name] = (t, differences.moved(t, (piece / n for piece in summed)))
    sha256 = weights.compose(parts, out, weights.read_layout_of(base).metadata)
    if not quantile:
        return sha256, norm
    below = sum(one <= norm for one in norms) + counting * float(noise.drawn("count").standard_normal())
    return sha256, min(max(norm * math.exp(-RATE * (below / n - quantile)), LEAST), MOST)


def shared(multiplier: float, n: int) -> tuple[float, float]:
    """The multiplier of the sum's noise, and the deviation of the count's, that together promise `multiplier`.

    z_delta = (z^-2 - sigma_b^-2)^(-1/2) with sigma_b = n / 20, as in the paper's experiments, but never below 2 z: with
    few devices the count would take the whole budget, and so it costs the sum 15.5 % more noise at most. The paper has
    2 sigma_b, for votes of 1/2 and -1/2 beside devices that are not there; here a neighbour's difference is zero, which
    is below any norm: its vote goes from 0 to 1.
    """
    counting = max(n / 20, 2 * multiplier)
    return (multiplier**-2 - counting**-2) ** -0.5, counting


def _noised(pieces: Iterable[Real], deviation: float, drawn: np.random.Generator) -> Iterator[Real]:
    for piece in pieces:
        yield piece + deviation * drawn.standard_normal(len(piece))
