"""Ways in which a disk, or a person, damages a file. Each takes its path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[max(len(content) - 3, 0)] ^= 0x55
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)  # ELOOP, which holds for root too


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    "empty": lambda path: path.write_bytes(b"") and None,
    "flipped": _flip,
    "random": lambda path: path.write_bytes(bytes(range(256))) and None,
    "folder": _folder,
    "unreadable": _unreadable,
}


def content_of(path: Path) -> object:
    """What is there now, to compare with what is there later."""
    if path.is_symlink():
        return "link", path.readlink().name
    return "folder" if path.is_dir() else path.read_bytes()
