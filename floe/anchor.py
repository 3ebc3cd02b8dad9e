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

_WAY_OUT = "restore it: it is public, any member has it, and `floe join` writes it"


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
    check_witness(path, state, anchor)
    if not present(witness):
        write_atomically(witness, _line(anchor).encode())
    return anchor


def check_witness(path: Path, state: Path, anchor: Anchor) -> None:
    """That a state folder was enrolled with nobody else than `anchor`, of `path`. Raises `KeyFileError`."""
    witness = state / "enrolled"
    if not present(witness):
        return
    try:
        before = _parse(witness.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        before = None
    if before is None:
        raise KeyFileError(
            f"{witness}: damaged: not the `name key` of the federation that this folder was enrolled with; remove it: "
            f"it is written again, as {path} says"
        )
    if before != anchor:
        raise KeyFileError(
            f"{path}: another root than before, by {witness}: restore it, or begin anew with another [paths] state"
        )


def read_anchor(path: Path) -> Anchor | None:
    """The one line `name key`; None where there is no file. Raises `KeyFileError`."""
    if not present(path):
        return None
    anchor = _parse(_read(path))
    if anchor is None:
        raise KeyFileError(f"{path}: not `name key` of a federation; {_WAY_OUT}")
    return anchor


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
        cause = getattr(error, "strerror", None) or "not UTF-8"
        raise KeyFileError(f"{path}: cannot be read: {cause}; {_WAY_OUT}") from None


def _parse(text: str) -> Anchor | None:
    try:
        name, root = text.split()
        return Anchor(name, root) if re.fullmatch(NAME, name) and len(from_text(root)) == 32 else None
    except (ValueError, Refused):
        return None


def _line(anchor: Anchor) -> str:
    return f"{anchor.federation} {anchor.root}\n"
