"""The authority that shall follow, until the roster names it, and how it takes its place. Reads and writes key files.

Made in `ca-next`, and published; then that folder is called `ca-taken`, and what it has takes its place, file by file:
so it can be told after a kill how far it came. What members do goes by the two files in their place alone.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from floe.certificates import AUTHORITY, AUTHORITY_KEY, Authority, load_authority, new_authority
from floe.errors import KeyFileError
from floe.files import storing, sync_folder, write_atomically
from floe.identity import present

NEXT, TAKEN = "ca-next", "ca-taken"


def authority_here(folder: Path) -> Authority | None:
    """The authority, where its key lies in this folder; a change that was cut off goes on. Raises `KeyFileError`,
    `StoreError`.
    """
    if not present(folder / AUTHORITY_KEY):
        return None
    try:
        return load_authority(folder)
    except KeyFileError:  # a change is under way, or was cut off, or the files are wrong
        _move(folder)
        return load_authority(folder)


def next_authority(folder: Path, federation: str, now: float) -> str:
    """The authority that shall follow the one in `folder`, made at the first call; both in PEM, the new one first.

    `now`: unix seconds. Raises `KeyFileError`, `StoreError`.
    """
    before, made = load_authority(folder), folder / NEXT
    if not all(present(made / name) for name in (AUTHORITY_KEY, AUTHORITY)):
        with storing(made):
            if present(made):
                shutil.rmtree(made)  # of a process that died while it made it: nobody has seen it
        new_authority(made, federation, now)
    both = load_authority(made).pem + before.pem
    write_atomically(made / AUTHORITY, both.encode())
    return both


def take_next_authority(folder: Path) -> None:
    """Put the next authority, which the roster names, in the place of the one that is there. Raises `StoreError`."""
    with storing(folder):
        (folder / NEXT).rename(folder / TAKEN)
        sync_folder(folder)
    finish_taking(folder)


def finish_taking(folder: Path) -> bool:
    """Bring a change that was begun to its end; whether there was one. Raises `KeyFileError`, `StoreError`."""
    if not present(folder / TAKEN):
        return False
    _move(folder)
    with storing(folder):
        shutil.rmtree(folder / TAKEN)
    return True


def _move(folder: Path) -> None:
    with storing(folder):
        for name in (AUTHORITY_KEY, AUTHORITY):
            with suppress(FileNotFoundError):  # no change was begun, or another process has done it
                (folder / TAKEN / name).replace(folder / name)
                sync_folder(folder)
