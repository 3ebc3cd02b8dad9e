"""What rounding took from a device's updates, for the next one: error feedback that a kill does not disturb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_client.local import LocalModels
from floe import weights
from floe.messages import Phase

EPOCH = "epoch"


class Residuals:
    """Residuals by the phase that left them. A phase that is done again finds those of the phases before it.

    They count whatever became of the update: of one that was not accepted only what rounding took goes into the next,
    as without encoding nothing of it would. They end with the epoch, with the lineage, and with a phase that leaves
    none: of a plan whose updates are weights or float32.
    """

    def __init__(self, folder: Path) -> None:
        self._kept = LocalModels(folder)

    def before(self, phase: Phase) -> Mapping[str, weights.AnyArray]:
        """Those of the last phase before, by tensor. What is damaged is set aside."""
        path = self._kept.before(phase)
        if path is None or weights.read_layout_of(path).metadata.get(EPOCH) != f"{phase.epoch}":
            return {}
        return weights.read(path)

    def keep(self, phase: Phase, residuals: Mapping[str, weights.AnyArray]) -> None:
        """Write those that a phase leaves; that it leaves none, only if one before it did. Raises `StoreError`."""
        if residuals or self._kept.before(phase) is not None:
            self._kept.keep(phase, residuals, {EPOCH: f"{phase.epoch}"})
