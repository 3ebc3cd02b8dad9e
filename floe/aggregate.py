"""FedAvg over spooled updates, piece by piece: memory does not grow with the number of devices.

McMahan et al. 2017, Algorithm 1: w <- sum_k (n_k / n) w_k, here as (sum_k n_k w_k) / n in float64, in the order of
the updates given; callers sort by device id, so the result does not depend on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from floe import weights

PIECE = 128 * 1024  # elements of one tensor in memory at a time: 1 MiB in float64


@dataclass(frozen=True)
class Update:
    """One spooled update: its file, and its weight (the number of examples it was trained on)."""

    path: Path
    weight: float


def weighted_mean(
    updates: Sequence[Update], out: Path, metadata: Mapping[str, str] | None = None, base: Path | None = None
) -> str:
    """Write the weighted mean of the updates' tensors to `out`, with the names, shapes and dtypes of the first.

    Tensors of `base` that the updates lack (the scaling) are copied. Returns the SHA-256 of the file.

    Bit for bit `numpy.average(stack.astype(float64), axis=0, weights=...)` of the stacked rows, in the dtype of the
    update (numpy sums a single column in another order: there the float64 before rounding may differ); integer
    tensors (counters) are rounded to the nearest. Raises `ValueError` without updates, if a weight is negative or not
    finite, if all are zero, or if the layouts differ; `StoreError` if the disk is full.
    """
    shares = np.array([update.weight for update in updates], np.float64)
    if not len(shares) or not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise ValueError(f"weights must be finite, not negative, and not all zero: {shares.tolist()[:20]}")
    copied = weights.read_layout_of(base).tensors if base else ()
    parts = {t.name: (t, weights.pieces_of(base, t)) for t in copied if base}
    parts |= {t.name: (t, _means(updates, shares, t)) for t in _common_layout(updates).tensors}
    return weights.compose(parts, out, metadata or {})


def _means(
    updates: Sequence[Update], shares: npt.NDArray[np.float64], tensor: weights.Tensor
) -> Iterator[weights.AnyArray]:
    for at in range(0, tensor.elements, PIECE):
        mean = _weighted_sum(updates, shares, tensor, at)
        mean /= shares.sum()
        yield (np.rint(mean) if tensor.dtype.kind == "i" else mean).astype(tensor.dtype)


def _common_layout(updates: Sequence[Update]) -> weights.Layout:
    layout = weights.read_layout_of(updates[0].path)
    for update in updates[1:]:
        if difference := weights.read_layout_of(update.path).difference(layout):
            raise ValueError(f"{update.path}: {difference}")
    return layout


def _weighted_sum(
    updates: Sequence[Update], shares: npt.NDArray[np.float64], tensor: weights.Tensor, at: int
) -> npt.NDArray[np.float64]:
    # Each file is opened anew for each piece: thousands of updates must not need thousands of descriptors.
    total: npt.NDArray[np.float64] | None = None
    for update, share in zip(updates, shares, strict=True):
        product = np.multiply(weights.read_piece(update.path, tensor, at, PIECE), share, dtype=np.float64)
        total = product if total is None else np.add(total, product, out=total)
    assert total is not None
    return total
