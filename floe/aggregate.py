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
    parts = _copied(base) | {t.name: (t, _means(updates, shares, t)) for t in _common_layout(updates).tensors}
    return weights.compose(parts, out, metadata or {})


def linear_combination(
    terms: Sequence[tuple[Path, float]],
    out: Path,
    like: Path,
    metadata: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> str:
    """Write sum_i c_i x_i over the files x_i with their factors c_i, for the tensors of `like`, which all must have.

    Tensors of `base` that `like` lacks are copied. float64 in the order given, in the dtype of the tensor at the end;
    integers are rounded. Returns the SHA-256 of the file. Raises `StoreError`, and `ValueError` if a file has not all
    tensors of `like`.
    """
    layout = weights.read_layout_of(like)
    sources = [(path, {t.name: t for t in weights.read_layout_of(path).tensors}, factor) for path, factor in terms]
    for path, found, _ in sources:
        if absent := [t.name for t in layout.tensors if t.name not in found or found[t.name].shape != t.shape]:
            raise ValueError(f"{path}: tensor {absent[0]!r} is missing or of another shape")
    combined = {t.name: (t, _sums([(p, found[t.name], c) for p, found, c in sources])) for t in layout.tensors}
    return weights.compose(_copied(base) | combined, out, metadata or {})


def _copied(base: Path | None) -> dict[str, tuple[weights.Tensor, Iterator[weights.AnyArray]]]:
    return {t.name: (t, weights.pieces_of(base, t)) for t in weights.read_layout_of(base).tensors} if base else {}


def _means(
    updates: Sequence[Update], shares: npt.NDArray[np.float64], tensor: weights.Tensor
) -> Iterator[weights.AnyArray]:
    for at in range(0, tensor.elements, PIECE):
        mean = _weighted_sum(updates, shares, tensor, at)
        mean /= shares.sum()
        yield _rounded(mean, tensor)


def _sums(terms: Sequence[tuple[Path, weights.Tensor, float]]) -> Iterator[weights.AnyArray]:
    tensor = terms[0][1]
    for at in range(0, tensor.elements, PIECE):
        total = np.zeros(min(PIECE, tensor.elements - at), np.float64)
        for path, found, factor in terms:
            total += weights.read_piece(path, found, at, PIECE) * np.float64(factor)
        yield _rounded(total, tensor)


def _rounded(values: npt.NDArray[np.float64], tensor: weights.Tensor) -> weights.AnyArray:
    return (np.rint(values) if tensor.dtype.kind == "i" else values).astype(tensor.dtype)


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
