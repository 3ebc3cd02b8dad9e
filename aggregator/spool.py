"""The names of spooled updates: which file belongs to which update, which folder to which phase. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

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
