"""Operators: the private key that signs commands, and the list of those whom an aggregator obeys. Two small files."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from floe.errors import KeyFileError, Refused
from floe.files import storing
from floe.identity import Identity, new_identity, read_identity
from floe.signing import public_key
from floe.topics import NAME

_WAY_OUT = "`floe key operator` makes one"


@dataclass(frozen=True)
class Operators:
    """The list as it was read: names and public keys in the order of the lines, and the first thing wrong with it."""

    known: tuple[tuple[str, str], ...] = ()
    fault: str = ""


def new_operator(name: str, private: Path, known: Path) -> None:
    """Make an operator's key, mode 0600, and add it to the list. Raises `KeyFileError`: names that are no names or are
    taken, a key that is there, a list that does not read.
    """
    check_name(name)
    check_places(private, known)
    if not known.parent.is_dir():
        raise KeyFileError(f"{known}: no folder {known.parent}; make it first ([security] operators)")
    if any(taken == name for taken, _ in known_operators(known)):
        raise KeyFileError(f"{known}: has an operator {name!r} already; choose another name, or remove that line")
    identity = new_identity(private, name)
    with storing(known), known.open("a+b") as file:
        file.seek(0)
        unfinished = file.read()[-1:] not in (b"", b"\n")  # an editor may leave out the last line feed
        file.write(b"\n" * unfinished + f"{name} {identity.key}\n".encode())


def load_operator(private: Path, known: Path) -> Identity:
    """The operator whose key lies here, by the first name that the list gives it. Raises `KeyFileError`."""
    check_places(private, known)
    if not private.exists():
        raise KeyFileError(f"{private}: no operator's key here, so nothing can be signed; {_WAY_OUT}")
    identity = read_identity(private, private.stem)
    names = [name for name, key in known_operators(known) if key == identity.key]
    if not names:
        raise KeyFileError(f"{known}: has no line `name {identity.key}`, the key of {private}: add it, here too")
    return replace(identity, name=names[0])


def check_name(name: str) -> None:
    """Raises `KeyFileError` for what is no name of an operator."""
    if not re.fullmatch(NAME, name):
        raise KeyFileError(f"{name!r}: an operator needs a name of [a-z0-9_-]{{1,64}}")


def check_places(private: Path, known: Path) -> None:
    """That the two files have names of their kind. Raises `KeyFileError`."""
    if private.suffix != ".pem":
        raise KeyFileError(f"{private}: [security] operator_key names a file in PEM: let its name end in .pem")
    if known.suffix == ".pem" or known.absolute() == private.absolute():
        raise KeyFileError(f"{known}: [security] operators is the list of public keys, and no .pem: name another file")


def known_operators(path: Path) -> tuple[tuple[str, str], ...]:
    """Names and public keys of those who may give commands, in the order of the lines; none without a file.

    Raises `KeyFileError` for a file that cannot be read and for the first line that is none of the list's.
    """
    read = read_operators(path)
    if read.fault:
        raise KeyFileError(read.fault)
    return read.known


def read_operators(path: Path) -> Operators:
    """A line is `name key`, `#` begins a comment. What does not read gives no rights, and is told in `fault`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return Operators()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not UTF-8"
        return Operators(fault=f"{path}: cannot be read ({cause}), so no operator is obeyed; mend it")
    known, fault = [], ""
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) == 2 and re.fullmatch(NAME, words[0]) and _is_key(words[1]):
            known.append((words[0], words[1]))
        elif words and not fault:
            fault = f"{path}, line {number}: not `name key`, but {line.strip()[:80]!r}; mend or remove it"
    return Operators(tuple(known), fault)


def _is_key(text: str) -> bool:
    try:
        public_key(text)
    except Refused:
        return False
    return True
