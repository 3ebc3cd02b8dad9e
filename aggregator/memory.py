"""The memories of the optimizers in `floe.adaptive`, in `<state>/optimizer`: a file for the model that it came with.

`<round>-<SHA-256 of the model>-<its own>.safetensors`. It is there before the model is in the log; that of the base
stays until then, so that a round which was interrupted makes the same model again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aggregator.registry import Model
from floe import adaptive, weights
from floe.files import fault_of, set_aside, storing, sync_folder

MEMORIES = "*-*-*.safetensors"


class Memory:
    """The memories of one lineage; `tell` is told what is set aside."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell

    @property
    def next(self) -> Path:
        """Where a memory is written while its model is made."""
        return self._folder / "next.safetensors"

    def of(self, model: Model, rule: str) -> Path | None:
        """The memory that came with a model, made by this rule; None if there is none."""
        for path in self._all(model):
            if fault := fault_of_memory(path):
                self._tell(f"{path}: {fault}; set aside as {set_aside(path).name}: the optimizer begins anew")
            elif weights.read_layout_of(path).metadata.get(adaptive.RULE) == rule:
                return path
        return None

    def keep(self, base: Model, made: Model, sha256: str) -> None:
        """`next` is the memory of `made`; all others but that of its base go. Raises `StoreError`."""
        there, before = self._folder / f"{_place(made)}-{sha256}.safetensors", self._all(base)
        with storing(self._folder):
            self.next.replace(there)
            sync_folder(self._folder)
            for path in {*self._folder.glob(MEMORIES)} - {there, *before}:
                path.unlink()

    def _all(self, model: Model) -> list[Path]:
        return sorted(self._folder.glob(f"{_place(model)}-*.safetensors"))


def fault_of_memory(path: Path) -> str:
    """What is wrong with a memory in words; empty for nothing."""
    return fault_of(path, path.stem.rpartition("-")[2])


def _place(model: Model) -> str:
    return f"{model.round}-{model.sha256}"
