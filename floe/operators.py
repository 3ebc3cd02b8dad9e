"""Operators: the private key that signs commands, and the list of those whom an aggregator obeys. Two small files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from floe.errors import KeyFileError
from floe.files import storing
from floe.identity import Identity, load_identity
from floe.topics import NAME

_WAY_OUT = "`floe key operator` makes one"


def new_operator(name: str, private: Path, known: Path) -> None:
    """Make an operator's key, mode 0600, and add it to the list. Raises `KeyFileError`: names that are no names or are
    taken, a key that is there.
    """
    if not re.fullmatch(NAME, name):
        raise KeyFileError(f"{name!r}: an operator needs a name of [a-z0-9_-]{{1,64}}")
    if any(taken == name for taken, _ in known_operators(known)):
        raise KeyFileError(f"{known}: has an operator {name!r} already; choose another name, or remove that line")
    if private.exists() or private.is_symlink():
        raise KeyFileError(f"{private}: exists already, and is never overwritten")
    identity = load_identity(private.parent, private.stem)
    with storing(known), known.open("a", encoding="utf-8") as file:
        file.write(f"{name} {identity.key}\n")


def load_operator(private: Path, known: Path) -> Identity:
    """The operator whose key lies here, by the name that the list gives it. Raises `KeyFileError`."""
    if not private.exists():
        raise KeyFileError(f"{private}: no operator's key here, so nothing can be signed; {_WAY_OUT}")
    identity = load_identity(private.parent, private.stem)
    names = [name for name, key in known_operators(known) if key == identity.key]
    if not names:
        raise KeyFileError(f"{known}: has no line `name {identity.key}`, the key of {private}: add it, here too")
    return replace(identity, name=names[0])


def known_operators(path: Path) -> set[tuple[str, str]]:
    """Names and public keys of those who may give commands: a line each, `#` begins a comment. Nobody without file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    words = [line.partition("#")[0].split() for line in lines]
    return {(name, key) for name, key in (found for found in words if len(found) == 2)}
