"""Files that are whole or absent: written beside their place, synced, renamed; hashed; set aside. Only the disk."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from floe.errors import ConfigError, StoreError


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StoreError` that names the place (a full disk, a missing right)."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; nothing was replaced") from error


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well: synced, renamed, folder synced.

    If the block raises, `path` is as it was. What nobody was promised needs no `sync`: it survives the end of a
    process, not that of the power. Raises `StoreError`.
    """
    temporary = path.with_name(f".{path.name}.part")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)


def sync(*paths: Path) -> None:
    """Make durable, with their names, files of one folder that were written without: fewer commits of the journal.

    For files that nothing speaks of yet: a power cut before this may leave them under their names, and not whole.
    """
    for path in paths:
        with storing(path), path.open("rb") as file:
            os.fsync(file.fileno())
    with storing(paths[0].parent):
        sync_folder(paths[0].parent)


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace `path` by `content`, whole or not at all. Raises `StoreError`."""
    with replacing(path, sync=sync) as file:
        file.write(content)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault_of(path: Path, sha256: str, size: int | None = None) -> str:
    """Why a file is not the one with this SHA-256 (of at most so many bytes), in words; empty if it is.

    What is no file, or larger than it may be, is not read: a pipe would never end, and a disk image would take hours.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return "it is no file"
        if size is not None and about.st_size > size:
            return f"damaged or another file: it has {about.st_size} bytes, the log has {size}"
        found = hash_of(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return "" if found == sha256 else f"damaged or another file: its SHA-256 is {found}, the log has {sha256}"


def check_place(path: Path, flag: str) -> None:
    """Whether a file that was asked for has a folder to go to. Raises `ConfigError`, which names flag and place."""
    try:
        there = stat.S_ISDIR(path.parent.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {path.parent}: {error.strerror}; choose another place") from None
    if not there:
        raise ConfigError(f"{flag} {path}: no folder {path.parent}; make it first")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{flag} {path}: is there, and no file; choose another name")


def set_aside(path: Path, folder: Path | None = None) -> Path:
    """Rename what is damaged to `<name>.damaged` (`.damaged-2`, ...), over nothing; where it is now.

    `folder` is on the same disk; by default the file's own. Raises `StoreError`.
    """
    beside = (folder or path.parent) / path.name
    places = (beside.with_name(f"{path.name}.damaged{number}") for number in ("", *(f"-{n}" for n in range(2, 1000))))
    aside = next((place for place in places if not os.path.lexists(place)), None)
    if aside is None:
        raise StoreError(f"{path}: damaged, and set aside so often that no name is left; look at {beside.parent}")
    with storing(path):
        path.rename(aside)
        sync_folder(aside.parent)
        sync_folder(path.parent)
    return aside


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files (fsync of the directory)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
