"""What a device has learned and does not share: the files, one for each round. Reads and writes `<state>/local`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from floe import weights
from floe.files import set_aside, storing
from floe.kept import fault_of, keep
from floe.messages import Phase
from floe.service import log

LINEAGE = "lineage"  # of the metadata


class LocalModels:
    """Models by the round they were trained in: `<epoch>-<round>.safetensors`, the newest and the one it came from.

    A round that is done again after a kill starts from the same weights, and so gives the same. What another lineage
    left does not count, and goes when a model is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def before(self, phase: Phase) -> Path | None:
        """The newest model of its lineage from before a phase; None if there is none. One that is damaged is set aside.

        What is measured after a round's training comes after it.
        """
        end = (phase.epoch, phase.round + (phase.task in ("threshold", "evaluate")))
        for place in sorted(self._places(), reverse=True):
            path = self._path(*place)
            if place < end:
                if fault := fault_of(path):
                    log(f"warning: {path}: {fault}; set aside as {set_aside(path).name}")
                elif weights.read_layout_of(path).metadata.get(LINEAGE) == phase.lineage:
                    return path
        return None

    def keep(self, phase: Phase, arrays: Mapping[str, weights.AnyArray], metadata: Mapping[str, str]) -> None:
        """Write the model of a phase; all others but the one before it are removed. Raises `StoreError`."""
        path, start = self._path(phase.epoch, phase.round), self.before(phase)
        keep(path, arrays, {LINEAGE: phase.lineage, **metadata})
        with storing(self._folder):
            for other in [self._path(*place) for place in self._places()]:
                if other not in (path, start):
                    other.unlink()

    def _path(self, epoch: int, round: int) -> Path:
        return self._folder / f"{epoch}-{round}.safetensors"

    def _places(self) -> list[tuple[int, int]]:
        names = [re.fullmatch(r"(\d+)-(\d+)\.safetensors", path.name) for path in self._folder.glob("*.safetensors")]
        return [(int(name[1]), int(name[2])) for name in names if name]
