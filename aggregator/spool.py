"""The spool: accepted updates on disk until the phase that uses them has ended."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from aggregator.log import Log
from aggregator.results import Spooled
from floe.files import fault_of, set_aside, storing, sync_folder
from floe.messages import Phase


def place_in_spool(used_in: Phase, device: str = "", made_in: Phase | None = None) -> Path:
    """The folder of the updates that a phase will use, or the file of one of them.

    `<device>.safetensors`, a late one `<device>@<its round>.safetensors`.
    """
    folder = Path(f"{used_in.epoch}-{used_in.round}-{used_in.task}")
    late = f"@{made_in.round}" if made_in not in (None, used_in) else ""
    return folder / f"{device}{late}.safetensors" if device else folder


def phase_of_folder(folder: Path, lineage: str) -> Phase:
    """The phase that a folder of the spool belongs to. Raises `ValueError` for a name that is none."""
    epoch, round_, task = folder.name.split("-")
    return msgspec.convert({"lineage": lineage, "epoch": int(epoch), "round": int(round_), "task": task}, Phase)


def phases_of(update: Mapping[str, Any]) -> tuple[Phase, Phase]:
    """The phases that a row of `updates` was made in and, of an accepted one, is used in."""
    made_in = Phase(update["lineage"], update["epoch"], update["round"], update["task"])
    return made_in, replace(made_in, round=update["merged"])


class Spool:
    """The updates of one lineage that wait for the end of their phase, in `<state>/spool`. `models`: the registry."""

    def __init__(self, state: Path, models: Path, log: Log, lineage: str) -> None:
        self._state = state
        self._models = models
        self._log = log
        self._lineage = lineage

    def folder(self, phase: Phase) -> Path:
        """Where the updates are that a phase will use."""
        return self._state / "spool" / place_in_spool(phase)

    def path(self, device: str, made_in: Phase, used_in: Phase) -> Path:
        """The file of one of them."""
        return self._state / "spool" / place_in_spool(used_in, device, made_in)

    def updates(self, phase: Phase) -> list[Spooled]:
        """What a phase uses, in the order of arrival; late updates without the model they started from are given up."""
        found = []
        for update in self._log.merged(phase):
            made_in, used_in = phases_of(update)
            behind = self._log.models_between(made_in, phase)
            base = self._log.base_of(made_in) if behind else None
            start = self._models / base["file"] if base else None
            if base and start and (fault := fault_of(start, base["sha256"])):
                self._give_up(update, f"{start}: {fault}; a late update that started from it cannot be merged")
            elif update["sha256"]:
                path = self.path(update["device"], made_in, used_in)
                found.append(Spooled(update["device"], path, update["samples"], behind, start, update["transfer"]))
        return found

    def carry_over(self, phase: Phase) -> None:
        """What a void round had accepted is for the next: late updates are merged, and these are not even late."""
        following = replace(phase, round=phase.round + 1)
        with storing(self.folder(following)):
            for update in self._log.merged(phase):
                if update["sha256"]:
                    made_in, _ = phases_of(update)
                    place = self.path(update["device"], made_in, following)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with suppress(FileExistsError):
                        place.hardlink_to(self.path(update["device"], made_in, phase))
                    sync_folder(place.parent)

    def ended(self) -> list[Path]:
        """The folders of phases that have ended."""
        return [folder for folder in (self._state / "spool").glob("*") if self._has_ended(folder)]

    def mend(self, epoch: int) -> None:
        """Give up the accepted updates whose files the disk has damaged; these are set aside. Raises `StoreError`."""
        for update in self._log.unused(self._lineage, epoch):
            path = self.path(update["device"], *phases_of(update))
            if fault := fault_of(path, update["sha256"]):
                # Out of the spool, which is removed when its phase has closed.
                aside = f"; set aside as {set_aside(path, self._state)}" if os.path.lexists(path) else ""
                self._give_up(update, f"{path}: {fault}{aside}: the round goes on without this update")

    def _give_up(self, update: Mapping[str, Any], why: str) -> None:
        self._log.lost(update["transfer"], why)
        self._log.event("error", "damaged", why, device=update["device"], reason="storage")

    def _has_ended(self, folder: Path) -> bool:
        try:
            row = self._log.round(phase_of_folder(folder, self._lineage))
        except ValueError:
            return False  # not ours
        return row is not None and row["state"] != "open"
