"""What updates have learned: their differences to the base model, the norms of these, their sums, piece by piece.

A difference is (update - base) in float64. A norm is L2, over all float tensors of an update together; integer tensors
(counters) have no part in it. Memory does not grow with the number of updates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from floe import weights
from floe.mean import PIECE, Pieces, Real, Update, common_layout, rounded


class Differences:
    """The differences of updates to one base, in the order of the updates. Of `layout` are the updates.

    Raises `ValueError` if the layouts of the updates differ, or the base lacks a tensor of theirs.
    """

    def __init__(self, updates: Sequence[Update], base: Path) -> None:
        self.layout = common_layout(updates)
        self._paths = [update.path for update in updates]
        self._base = base
        self._found = {t.name: t for t in weights.read_layout_of(base).tensors}
        for t in self.layout.tensors:
            there = self._found.get(t.name)
            if there is None or (there.shape, there.dtype) != (t.shape, t.dtype):
                raise ValueError(f"{base}: tensor {t.name!r} is missing or another one")

    @property
    def floats(self) -> list[weights.Tensor]:
        """The tensors that count in a norm."""
        return [t for t in self.layout.tensors if t.dtype.kind == "f"]

    def norms(self) -> list[float]:
        """The norm of every difference; infinite or NaN where an update's numbers are."""
        return [self._norm(path) for path in self._paths]

    def sums(self, tensor: weights.Tensor, factors: Sequence[float]) -> Iterator[Real]:
        """sum_k factor_k (update_k - base) of one tensor, flat, in pieces of `PIECE` elements.

        In the order of the updates, each difference first, then its product.
        """
        for at in range(0, tensor.elements, PIECE):
            base, total = self._base_piece(tensor, at), np.zeros(min(PIECE, tensor.elements - at), np.float64)
            for path, factor in zip(self._paths, factors, strict=True):
                total += (weights.read_piece(path, tensor, at, PIECE) - base) * np.float64(factor)
            yield total

    def moved(self, tensor: weights.Tensor, changes: Iterable[Real]) -> Pieces:
        """(base + change) of one tensor, in its dtype, for changes in pieces of `PIECE` elements."""
        for number, change in enumerate(changes):
            yield rounded(self._base_piece(tensor, number * PIECE) + change, tensor)

    def _norm(self, path: Path) -> float:
        total = 0.0
        for tensor in self.floats:
            for at in range(0, tensor.elements, PIECE):
                difference = weights.read_piece(path, tensor, at, PIECE) - self._base_piece(tensor, at)
                total += float(np.square(difference, out=difference).sum())
        return math.sqrt(total)

    def _base_piece(self, tensor: weights.Tensor, at: int) -> Real:
        return weights.read_piece(self._base, self._found[tensor.name], at, PIECE).astype(np.float64)


def factors_to(bound: float, norms: Iterable[float]) -> list[float]:
    """What differences of these norms are multiplied by, so that none is longer than `bound`: min(1, bound / norm)."""
    return [1.0 if norm <= bound else bound / norm for norm in norms]
