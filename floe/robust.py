"""Rules that some lying devices do not turn: median, trimmed mean, Krum, Multi-Krum; and the clipping of norms.

Piece by piece in float64, in the order of the updates given. None of them believes the number of rows that an update
claims: every update has one voice. How many a rule needs says `soundness.least_updates`. Memory: `BUDGET`
numbers, and for Krum and Multi-Krum the distances, n x n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from floe import weights
from floe.differences import Differences, factors_to
from floe.mean import PIECE, Pieces, Real, Update, common_layout, copied, means, rounded, weighted_mean

BUDGET = 4 * 1024 * 1024  # numbers of one piece of all updates together: 32 MiB in float64


def median(updates: Sequence[Update], base: Path, out: Path) -> str:
    """Write the median of every coordinate, the mean of the middle two of an even number; the SHA-256 of the file.

    Yin et al. 2018, Definition 1. Tensors that the updates lack are the base's; integers are rounded, halves to even.
    """
    return _by_coordinate(updates, base, out, _middle)


def trimmed_mean(updates: Sequence[Update], base: Path, out: Path, f: int) -> str:
    """Write the mean of every coordinate without its f smallest and f largest; the SHA-256 of the file.

    Yin et al. 2018, Definition 2, with beta = f / n; n > 2 f. As `median` otherwise.
    """
    return _by_coordinate(updates, base, out, lambda block: _without_ends(block, f))


def krum(updates: Sequence[Update], base: Path, out: Path, f: int, keep: int = 1) -> tuple[str, list[int]]:
    """Write the mean of the `keep` updates of the least scores; the SHA-256 of the file, and which they are.

    The score of an update is the sum of its squared distances to its n - f - 2 nearest others, over all float tensors;
    of equal ones the first is taken. With `keep` 1, Krum, it is that update (Blanchard et al. 2017, section 4),
    otherwise Multi-Krum; n >= 2 f + 3 and n >= keep + f. As `median` otherwise.
    """
    scores = scores_of(distances_between(updates), f)
    chosen = sorted(np.argsort(scores, kind="stable")[:keep].tolist())
    metadata = weights.read_layout_of(base).metadata
    return weighted_mean([Update(updates[k].path, 1.0) for k in chosen], out, metadata, base), chosen


def clipped_mean(updates: Sequence[Update], base: Path, out: Path, bound: float) -> tuple[str, list[float]]:
    """Write base + sum_k c_k (update_k - base) / n, c_k = min(1, bound / norm_k); the SHA-256, and the factors c_k.

    Sun et al. 2019, section 4 ("norm thresholding"); there, too, devices have equal shares. Integers are the mean's.
    """
    counts, differences = np.ones(len(updates)), Differences(updates, base)
    factors = factors_to(bound, differences.norms())
    parts = copied(base) | {t.name: (t, means(updates, counts, t)) for t in differences.layout.tensors}
    for t in differences.floats:
        summed = differences.sums(t, factors)
        parts[t.name] = (t, differences.moved(t, (piece / len(updates) for piece in summed)))
    return weights.compose(parts, out, weights.read_layout_of(base).metadata), factors


def distances_between(updates: Sequence[Update]) -> Real:
    """The squared L2 distances between all updates, over all float tensors, as a symmetric matrix."""
    found, columns = np.zeros((len(updates), len(updates)), np.float64), max(PIECE // len(updates), 1)
    for tensor in common_layout(updates).tensors:
        for block in _blocks(updates, tensor) if tensor.dtype.kind == "f" else ():
            for at in range(0, block.shape[1], columns):
                _add_distances(block[:, at : at + columns], found)
    for k in range(len(found)):
        found[k:, k] = found[k, k:]  # in place: of 5,000 updates a second matrix were another 200 MB
    return found


def scores_of(distances: Real, f: int) -> Real:
    """Krum's score of every update: the sum of the distances to its n - f - 2 nearest others, the nearest first."""
    n = len(distances)
    return np.array([np.sort(np.delete(row, k))[: n - f - 2].sum() for k, row in enumerate(distances)])


def _add_distances(rows: Real, found: Real) -> None:
    """Add the squared distances between rows; few columns at a time stay in the processor's cache."""
    for k in range(len(rows) - 1):
        apart = rows[k + 1 :] - rows[k]
        found[k, k + 1 :] += np.square(apart, out=apart).sum(axis=1)


def _by_coordinate(updates: Sequence[Update], base: Path, out: Path, rule: Callable[[Real], Real]) -> str:
    def pieces(tensor: weights.Tensor) -> Pieces:
        return (rounded(rule(block), tensor) for block in _blocks(updates, tensor))

    parts = copied(base) | {t.name: (t, pieces(t)) for t in common_layout(updates).tensors}
    return weights.compose(parts, out, weights.read_layout_of(base).metadata)


def _blocks(updates: Sequence[Update], tensor: weights.Tensor) -> Iterator[Real]:
    """One tensor of all updates, an update a row, in pieces of at most `BUDGET` numbers."""
    # A file is opened once for each piece: with 5,000 updates of 1.6 M numbers 1,908 times.
    piece = max(min(BUDGET // len(updates), PIECE), 1)
    for at in range(0, tensor.elements, piece):
        block = np.empty((len(updates), min(piece, tensor.elements - at)), np.float64)
        for row, update in zip(block, updates, strict=True):
            row[:] = weights.read_piece(update.path, tensor, at, piece)
        yield block


def _middle(block: Real) -> Real:
    block.sort(axis=0)
    return np.asarray((block[(len(block) - 1) // 2] + block[len(block) // 2]) / 2)


def _without_ends(block: Real, f: int) -> Real:
    block.sort(axis=0)
    total = np.zeros(block.shape[1], np.float64)
    for row in block[f : len(block) - f]:
        total += row
    return total / (len(block) - 2 * f)
