"""The mean of spooled updates and other sums of them, piece by piece: memory does not grow with the number of devices.

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

Real = npt.NDArray[np.float64]
Pieces = Iterator[weights.AnyArray]


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
    counts = counts_of(updates)
    parts = copied(base) | {t.name: (t, means(updates, counts, t)) for t in common_layout(updates).tensors}
    return weights.compose(parts, out, metadata or {})


@np.errstate(over="ignore", invalid="ignore")
def linear_combination(
    terms: Sequence[tuple[Path, float]],
    out: Path,
    like: Path,
    metadata: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> str:
    """Write sum_i c_i x_i over the files x_i with their factors c_i, for the tensors of `like`, which all must have.

    Tensors of `base` that `like` lacks are copied. float64 in the order given, in the dtype of the tensor at the end;
    integers are rounded, what the dtype cannot hold is infinite. Returns the SHA-256 of the file. Raises `StoreError`,
    and `ValueError` if a file has not all tensors of `like`.
    """
    layout = weights.read_layout_of(like)
    sources = [(path, {t.name: t for t in weights.read_layout_of(path).tensors}, factor) for path, factor in terms]
    for path, found, _ in sources:
        if absent := [t.name for t in layout.tensors if t.name not in found or found[t.name].shape != t.shape]:
            raise ValueError(f"{path}: tensor {absent[0]!r} is missing or of another shape")
    combined = {t.name: (t, _sums([(p, found[t.name], c) for p, found, c in sources])) for t in layout.tensors}
    return weights.compose(copied(base) | combined, out, metadata or {})


def counts_of(updates: Sequence[Update]) -> Real:
    """The weights of the updates. Raises `ValueError` if they give no mean."""
    counts = np.array([update.weight for update in updates], np.float64)
    if not len(counts) or not np.isfinite(counts).all() or counts.min() < 0 or counts.sum() <= 0:
        raise ValueError(f"weights must be finite, not negative, and not all zero: {counts.tolist()[:20]}")
    return counts


def common_layout(updates: Sequence[Update]) -> weights.Layout:
    """The layout of all the updates. Raises `ValueError` if they differ."""
    layout = weights.read_layout_of(updates[0].path)
    for update in updates[1:]:
        if difference := weights.read_layout_of(update.path).difference(layout):
            raise ValueError(f"{update.path}: {difference}")
    return layout


def copied(base: Path | None) -> dict[str, tuple[weights.Tensor, Pieces]]:
    """All tensors of a file, as parts for `weights.compose`; of no file none."""
    return {t.name: (t, weights.pieces_of(base, t)) for t in weights.read_layout_of(base).tensors} if base else {}


def means(updates: Sequence[Update], counts: Real, tensor: weights.Tensor) -> Pieces:
    """The mean of one tensor of the updates, weighted by `counts`, in its dtype, in pieces of `PIECE` elements."""
    for at in range(0, tensor.elements, PIECE):
        mean = _weighted_sum(updates, counts, tensor, at)
        mean /= counts.sum()
        yield rounded(mean, tensor)


def rounded(values: Real, tensor: weights.Tensor) -> weights.AnyArray:
    """float64 in the dtype of the tensor; integers to the nearest, halves to even."""
    return (np.rint(values) if tensor.dtype.kind == "i" else values).astype(tensor.dtype)


def _sums(terms: Sequence[tuple[Path, weights.Tensor, float]]) -> Pieces:
    tensor = terms[0][1]
    for at in range(0, tensor.elements, PIECE):
        total = np.zeros(min(PIECE, tensor.elements - at), np.float64)
        for path, found, factor in terms:
            total += weights.read_piece(path, found, at, PIECE) * np.float64(factor)
        yield rounded(total, tensor)


def _weighted_sum(updates: Sequence[Update], counts: Real, tensor: weights.Tensor, at: int) -> Real:
    # Each file is opened anew for each piece: thousands of updates must not need thousands of descriptors.
    total: Real | None = None
    for update, count in zip(updates, counts, strict=True):
        product = np.multiply(weights.read_piece(update.path, tensor, at, PIECE), count, dtype=np.float64)
        total = product if total is None else np.add(total, product, out=total)
    assert total is not None
    return total
