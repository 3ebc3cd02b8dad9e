"""What `floe check` finds: one line for each finding with the way out, and how much was looked at. Pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from floe.errors import FloeError


class Finding(msgspec.Struct, frozen=True):
    """`damaged`: not as it was written, or not as other places say; `note`: nothing is wrong, but good to know."""

    level: Literal["damaged", "note"]
    place: str
    what: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.level:8} {self.place}: {self.what}" + (f"; {self.way_out}" if self.way_out else "")


class Findings:
    """Collects what the parts of a check find."""

    def __init__(self) -> None:
        self.all: list[Finding] = []
        self.checked: Counter[str] = Counter()

    @property
    def damaged(self) -> int:
        return sum(finding.level == "damaged" for finding in self.all)

    def told(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        return {"ok": not self.damaged, "checked": dict(self.checked), "findings": msgspec.to_builtins(self.all)}

    def damage(self, place: Path, what: str, way_out: str) -> None:
        self.all.append(Finding("damaged", str(place), what, way_out))

    def note(self, place: Path, what: str) -> None:
        self.all.append(Finding("note", str(place), what))

    def count(self, what: str, many: int = 1) -> None:
        """So many of a kind were looked at."""
        self.checked[what] += many

    @contextmanager
    def looking_at(self, place: Path, what: str) -> Iterator[None]:
        """Count it, and take an error of Floe's, whose text has the way out, or of the system's as a finding."""
        self.count(what)
        try:
            yield
        except FloeError as error:
            self.damage(place, str(error).removeprefix(f"{place}: "), "")
        except OSError as error:
            self.damage(place, f"cannot be read: {error.strerror or error}", "give this account the right to read it")

    def look_into(self, path: Path, what: str, fault_of: Callable[[Path], str], way_out: str) -> None:
        """Count a file, and take what `fault_of` says, in words or empty, as damage.

        Not if the file was replaced or removed meanwhile: the process that it belongs to may be running.
        """
        before = _identity(path)
        if before is None:
            return
        self.count(what)
        if (fault := fault_of(path)) and _identity(path) == before:
            self.damage(path, fault, way_out)

    def set_aside(self, folder: Path) -> None:
        """Note what an earlier start found damaged."""
        # Not rglob: it raises for a folder that goes while it looks.
        for path in sorted(Path(at, name) for at, folders, files in os.walk(folder) for name in folders + files):
            if ".damaged" in path.name:
                self.note(path, "was found damaged and set aside; remove it when you no longer need it")


def _identity(path: Path) -> tuple[int, ...] | None:
    """Which file it is, as it is now; None if there is none."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
