"""What `floe check` finds: one line for each finding with the way out, and how much was looked at. Pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec

from floe.errors import FloeError

RIGHT = "give this account the right to read it"


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
            self.damage(place, f"cannot be read: {error.strerror or error}", RIGHT)

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

    def has(self, path: Path) -> bool | None:
        """Whether something is there. None if that cannot be told: the folder that keeps it from us is damage."""
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self._closed(path, error)
            return None
        return True

    def files_in(self, folder: Path, pattern: str = "*") -> list[Path]:
        """What lies in a folder, by name; nothing where there is none. One that may not be read is damage."""
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 (Path.glob takes a folder that may not be read for empty)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._closed(folder, error)
            return []
        return [folder / name for name in names if fnmatchcase(name, pattern)]

    def files_below(self, folder: Path, *, folders: bool = False) -> list[Path]:
        """All files below a folder, and the folders; those that may not be read are damage."""
        # Not rglob: it raises for a folder that goes while it looks, and passes over one that may not be read.
        walk = os.walk(folder, onerror=self._not_walked)
        return sorted(Path(at, name) for at, within, files in walk for name in (*files, *(within if folders else ())))

    def set_aside(self, folder: Path) -> None:
        """Note what an earlier start found damaged, wherever it lies below a folder."""
        for path in self.files_below(folder, folders=True):
            if ".damaged" in path.name:
                self.note(path, "was found damaged and set aside; remove it when you no longer need it")

    def _not_walked(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self._closed(Path(error.filename), error)

    def _closed(self, path: Path, error: OSError) -> None:
        """Once for each folder, however much of what is in it was looked for."""
        place = next((folder for folder in reversed(path.parents) if not _is_open(folder)), path)
        finding = Finding("damaged", str(place), f"cannot be looked into: {error.strerror or error}", RIGHT)
        if finding not in self.all:
            self.all.append(finding)


def _is_open(folder: Path) -> bool:
    try:
        os.lstat(f"{folder}/.")
    except OSError:
        return False
    return True


def _identity(path: Path) -> tuple[int, ...] | None:
    """Which file it is, as it is now; None if there is none."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
