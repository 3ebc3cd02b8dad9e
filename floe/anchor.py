"""`federation.pub`: the name of the federation and its root's public key. Where it lies, devices are enrolled."""

from __future__ import annotations

import re
from pathlib import Path

from floe.errors import KeyFileError, Refused
from floe.files import write_atomically
from floe.identity import present
from floe.roster import Anchor
from floe.settings import Config
from floe.signing import from_text
from floe.topics import NAME


def load_anchor(config: Config, state: Path) -> Anchor | None:
    """What `federation.pub` says, or None where there is none: then there is no enrolment.

    Side effect: remembers in `state` that there was one. Raises `KeyFileError` if it was there once and is missing now,
    or is of another federation than the configuration's.
    """
    path, witness = config.path(config.security.federation), state / "enrolled"
    anchor = read_anchor(path)
    if anchor is None:
        if present(witness):
            raise KeyFileError(
                f"{path}: missing, but this state folder has been enrolled with it; bring it back (it is public: any "
                f"member has it). To do without enrolment on purpose, remove {witness}"
            )
        return None
    if anchor.federation != config.federation.name:
        raise KeyFileError(
            f"{path}: of federation {anchor.federation!r}, but [federation] name = {config.federation.name!r}: set "
            "that, or move the file away"
        )
    text = _line(anchor)
    if not present(witness):
        write_atomically(witness, text.encode())
    elif _read(witness) != text:
        raise KeyFileError(f"{path}: another root than before: restore it, or begin anew with another [paths] state")
    return anchor


def read_anchor(path: Path) -> Anchor | None:
    """The one line `name key`; None where there is no file. Raises `KeyFileError`."""
    if not present(path):
        return None
    text = _read(path)
    try:
        name, root = text.split()
        if re.fullmatch(NAME, name) and len(from_text(root)) == 32:
            return Anchor(name, root)
    except (ValueError, Refused):
        pass
    raise KeyFileError(f"{path}: not `name key` of a federation; restore it (`floe join` writes it)")


def write_anchor(path: Path, anchor: Anchor) -> None:
    """Write it, or leave the same as it is. Raises `KeyFileError` if another is there, `StoreError`."""
    there = read_anchor(path)
    if there is not None and there != anchor:
        raise KeyFileError(
            f"{path}: this folder belongs to another federation, {there.federation!r}; use another, or remove that file"
        )
    if there is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _line(anchor).encode())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _line(anchor: Anchor) -> str:
    return f"{anchor.federation} {anchor.root}\n"
