"""A threshold for all devices, agreed from histograms of errors: PROTOCOL.md, section 9.1. NumPy only.

No row's error leaves a device, only how many fall between edges that everybody knows. These are a factor of 2^(1/8)
apart, and so near, 9.1 % up or down, the quantile is to that of the errors themselves, if they lie between the edges.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

BINS = 512
LOWEST, PER_OCTAVE = -40, 8  # from 2^-40 to 2^24

Errors = npt.NDArray[np.float64]


def edge(place: float) -> float:
    """The error where bin `place` begins and the one before it ends; a fraction is a place inside a bin."""
    return math.exp2(LOWEST + place / PER_OCTAVE)


def histogram(errors: Errors) -> tuple[int, ...]:
    """How many of the `errors`, finite and not negative, of shape (rows,), fall into each bin.

    What is below the lowest edge counts in the first bin, what is above the highest in the last.
    """
    edges = np.array([edge(place) for place in range(1, BINS)])
    counts = np.bincount(np.searchsorted(edges, errors, side="right"), minlength=BINS)
    return tuple(int(count) for count in counts)


def merged(histograms: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The histogram of all devices' rows together."""
    return tuple(sum(counts) for counts in zip(*histograms, strict=True))


def quantile(counts: Sequence[int], q: float) -> float:
    """The `q`-quantile of the errors that a histogram tells of, one at least, as `numpy.quantile` takes it.

    Between the two errors next to rank (n - 1) q, linearly (Hyndman & Fan 1996, definition 7); the n errors of a bin
    are taken to stand at (i + 1/2) / n of it, in the logarithm.
    """
    last = sum(counts) - 1
    if last < 0:
        raise ValueError("an empty histogram has no quantile")
    low = math.floor(last * q)
    below, above = _error_at(counts, low), _error_at(counts, min(low + 1, last))
    return below + (above - below) * (last * q - low)


def _error_at(counts: Sequence[int], rank: int) -> float:
    """The error of this rank; the smallest error's is 0."""
    ends = list(accumulate(counts))
    place = bisect_right(ends, rank)
    return edge(place + (rank - ends[place] + counts[place] + 0.5) / counts[place])
