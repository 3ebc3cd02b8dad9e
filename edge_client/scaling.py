"""Count, mean and squared deviations of every feature, and the scaling that follows from them. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from floe.errors import DataError
from floe.scaling import Real, scale_of

BLOCK = 4096

Array = npt.NDArray[Any]


def sums(x: npt.NDArray[np.float32]) -> dict[str, Array]:
    """What a device tells of its `x`, float32 of shape (rows, *shape), so that all devices can scale alike.

    "sums.count" int64 (1,); "sums.mean" and "sums.m2" float64 of `shape`, m2 the sum of squared deviations from the
    mean. Raw squares would cancel for large values of small spread, as epoch times are (Chan, Golub & LeVeque 1983).
    """
    mean = np.asarray(x.mean(axis=0, dtype=np.float64))
    m2 = np.zeros_like(mean)
    for start in range(0, len(x), BLOCK):
        m2 += np.square(x[start : start + BLOCK] - mean).sum(axis=0)
    return {"sums.count": np.array([len(x)], np.int64), "sums.mean": mean, "sums.m2": m2}


@dataclass(frozen=True, eq=False)
class Scaling:
    """(x - mean) / scale for every feature; both float64 of the shape of one example, scale finite and above 0."""

    mean: Real
    scale: Real

    @classmethod
    def of(cls, sums: Mapping[str, Array]) -> Scaling:
        """Mean and standard deviation of the rows that `sums` tells of; the scale of a constant feature is 1."""
        count, mean = int(sums["sums.count"][0]), sums["sums.mean"]
        return cls(mean, scale_of(mean, sums["sums.m2"], count))

    @classmethod
    def received(cls, mean: Array | None, scale: Array | None, shape: tuple[int, ...]) -> Scaling:
        """Check what came with the global model; raises `DataError` naming the tensor."""
        scaling = cls(_checked("scaling.mean", mean, shape), _checked("scaling.scale", scale, shape))
        if scaling.scale.min() <= 0:
            raise DataError(f"scaling.scale in the global model has {scaling.scale.min()}; it must be above 0")
        return scaling

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scaling):
            return NotImplemented
        return np.array_equal(self.mean, other.mean) and np.array_equal(self.scale, other.scale)

    def apply(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`x`, float32 of shape (rows, *shape), scaled in a new array; beyond float32's range it is cut off there."""
        largest = np.finfo(np.float32).max
        scaled = np.empty_like(x)
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            scaled[part] = np.clip((x[part] - self.mean) / self.scale, -largest, largest)
        return scaled


def _checked(name: str, array: Array | None, shape: tuple[int, ...]) -> Real:
    if array is None or array.dtype != np.float64 or array.shape != shape:
        found = "missing" if array is None else f"{array.dtype.name}{array.shape}"
        raise DataError(f"{name} is {found} in the global model; float64{shape} is needed")
    if not np.isfinite(array).all():
        raise DataError(f"{name} in the global model has NaN or infinite values")
    return array.copy()
