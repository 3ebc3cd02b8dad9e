"""What a phase makes of its accepted updates: the scaling, the first model, the mean. Reads the spool, writes files.

Pure in its inputs: the same files and weights give the same bytes, so that it may be done again after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from floe import weights
from floe.aggregate import Update, weighted_mean
from floe.errors import DataError, Refused
from floe.scaling import scale_of
from floe.schema import Schema


@dataclass(frozen=True)
class Spooled:
    """An accepted update with weights: its file, and the rows it was trained on."""

    device: str
    path: Path
    samples: int


def combine_sums(spooled: Sequence[Spooled], out: Path) -> None:
    """Mean and standard deviation of every feature over all rows of all devices, as `scaling.mean` and `.scale`.

    Counts, means and M2 (sums of squared deviations) are merged pairwise (Chan, Golub & LeVeque 1983, eq. 2.1), in the
    order given. float64, of the shape of one example. A constant feature gets scale 1.
    """
    count, mean, m2 = 0, np.zeros(()), np.zeros(())
    for item in spooled:
        sums = weights.read(item.path)
        n, delta = int(sums["sums.count"][0]), sums["sums.mean"] - mean
        mean = mean + delta * (n / (count + n))
        m2 = m2 + sums["sums.m2"] + delta**2 * (count * n / (count + n))
        count += n
    weights.write(out, {"scaling.mean": np.asarray(mean), "scaling.scale": scale_of(mean, m2, count)})


def first_model(initial: Path, scaling: Path | None, schema: str, out: Path) -> str:
    """Global model 0: initial weights, with the scaling and the schema of the federation; its SHA-256."""
    sources = {initial: _names(initial)} | ({scaling: _names(scaling)} if scaling else {})
    return weights.join(sources, out, {"schema": schema})


def federated_mean(spooled: Sequence[Spooled], base: Path, out: Path) -> str:
    """The next global model: FedAvg of the updates, the scaling of the base; its SHA-256.

    Without updates: the base again.
    """
    metadata = weights.read_layout_of(base).metadata
    if not spooled:
        return weights.join({base: _names(base)}, out, metadata)
    return weighted_mean([Update(item.path, item.samples) for item in spooled], out, metadata, base)


def check_initial(path: Path) -> weights.Layout:
    """A model that the operator gave to start from. Raises `DataError`."""
    try:
        layout = weights.check_numbers(path)
        Schema.from_json(layout.metadata.get("schema", "{}"))
    except (OSError, Refused) as error:
        raise DataError(
            f"{path}: cannot be the initial model: {error}; `floe models export` writes such files"
        ) from None
    return layout


def _names(path: Path) -> list[str]:
    return [t.name for t in weights.read_layout_of(path).tensors]
