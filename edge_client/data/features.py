"""`Features`: what one device learns from and is measured on. Reads arrays; knows nothing of the wire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from floe.errors import DataError
from floe.schema import Schema

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """Train and test rows of one device.

    `*_x` float32 of shape (rows, *schema.shape), finite; `*_y` int64 of shape (rows,), 0 <= y < schema.classes.
    For anomaly detection 0 is normal and 1 the anomaly. Raises `DataError` naming the array and the first bad place.
    """

    train_x: Array
    train_y: Labels
    test_x: Array
    test_y: Labels
    schema: Schema

    def __post_init__(self) -> None:
        names = self.schema.features
        if names and (self.schema.shape != (len(names),) or len(set(names)) != len(names)):
            raise DataError(f"the schema names {len(set(names))} different features of {self.schema.shape[0]}")
        for part, x, y in (("train", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            if len(x) == 0:
                raise DataError(f"{part}_x has no rows")
            if len(x) != len(y):
                raise DataError(f"{part}_x has {len(x)} rows, {part}_y has {len(y)}")
            if x.shape[1:] != self.schema.shape:
                raise DataError(f"{part}_x has examples of shape {x.shape[1:]}, the schema says {self.schema.shape}")
            finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
            if not finite.all():
                raise DataError(f"{part}_x has NaN or infinite values, first in row {int(np.argmin(finite))}")
            if y.min() < 0 or y.max() >= self.schema.classes:
                bad = int(np.argmax((y < 0) | (y >= self.schema.classes)))
                raise DataError(
                    f"{part}_y[{bad}] is {y[bad]}: labels go from 0 to {self.schema.classes - 1}; "
                    "number them so, or correct the classes in schema.json"
                )
