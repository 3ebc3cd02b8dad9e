"""Updates on disk for the rules, and what a rule makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from floe import weights
from floe.aggregate import Made, next_model
from floe.mean import Update
from floe.plan import Plan


def written(folder: Path, rows: Sequence[npt.ArrayLike], counts: Sequence[float] = ()) -> list[Update]:
    """An update of one tensor `w` (float32) for each row; of one row of data each, if `counts` says nothing else."""
    updates = []
    for number, row in enumerate(rows):
        weights.write(folder / f"{number:04}", {"w": np.asarray(row, "<f4")})
        updates.append(Update(folder / f"{number:04}", counts[number] if counts else 1.0))
    return updates


def base_of(folder: Path, row: npt.ArrayLike) -> Path:
    """A base with this `w`, and the scaling that a global model may have."""
    weights.write(folder / "base", {"w": np.asarray(row, "<f4"), "scaling.mean": np.array([1.5])}, {"schema": "{}"})
    return folder / "base"


def made(plan: Plan, folder: Path, updates: Sequence[Update], base: Path) -> Made:
    """`next_model` into `<folder>/out`, with the memory that the last one left."""
    before, after = folder / "before", folder / "after"
    if after.exists():
        after.replace(before)
    return next_model(plan, updates, base, folder / "out", before=before if before.exists() else None, after=after)


def result(folder: Path) -> npt.NDArray[np.float32]:
    """`w` of what `made` has made; the scaling and the metadata are the base's."""
    found = weights.read(folder / "out")
    assert found["scaling.mean"].tolist() == [1.5]
    assert dict(weights.read_layout_of(folder / "out").metadata) == {"schema": "{}"}
    return found["w"]


def model(plan: Plan, folder: Path, rows: Sequence[npt.ArrayLike], counts: Sequence[float] = ()) -> list[float]:
    """`w` after one round from a base of zeros."""
    updates = written(folder, rows, counts)
    made(plan, folder, updates, base_of(folder, np.zeros_like(np.asarray(rows[0], "<f4"))))
    return [float(number) for number in result(folder).ravel()]
