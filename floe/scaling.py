"""The scale of a feature, by one rule for a device and for the federation. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]


def scale_of(mean: npt.NDArray[Any], m2: npt.NDArray[Any], count: int) -> Real:
    """The standard deviation of every feature over `count` rows (1 or more), float64 of their shape; 1 if constant.

    `m2` is the sum of squared deviations from `mean`. Rounding alone can leave a deviation of `count` times epsilon
    of the mean where there is none (Chan, Golub & LeVeque 1983, section 3): scikit-learn's scalers draw the same line.
    """
    deviation = np.sqrt(np.asarray(m2, np.float64) / count)
    rounding = min(np.finfo(np.float64).eps * count, 1.0)
    return np.where(deviation > rounding * np.abs(mean), deviation, 1.0)
