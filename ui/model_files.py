"""The files of global models: whether they are what the log says, and how far two of them are apart, tensor by tensor.

Read piece by piece: a model may be larger than the memory that a page has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from floe import weights
from floe.errors import DataError, Refused
from floe.files import hash_of


@dataclass(frozen=True)
class Difference:
    """How a tensor of one model differs from that of another. `note`: in words, where numbers cannot be compared.

    `distance`: length of the difference (L2 norm); `relative`: the same as a share of the first one's length, None
    where that is zero; `largest`: of a single number.
    """

    name: str
    shape: tuple[int, ...]
    distance: float | None = None
    relative: float | None = None
    largest: float | None = None
    note: str = ""


def fault_of(path: Path, sha256: str) -> str:
    """Why a file is not the model that the log says, "" if it is. Its hash is computed once, until it changes."""
    try:
        about = path.stat()
        found = _hash(path, about.st_mtime_ns, about.st_size)
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    return "" if found == sha256 else f"{path}: damaged or another file: its SHA-256 is {found}"


def content(path: Path, sha256: str) -> bytes:
    """The bytes of a model. Raises `DataError` if they are not what the log says."""
    if fault := fault_of(path, sha256):
        raise DataError(fault)
    return path.read_bytes()


def differences(first: tuple[Path, str], second: tuple[Path, str]) -> list[Difference]:
    """Every tensor that either model has, by name; a model is its file and its SHA-256, by which this is kept.

    Raises `DataError` where a file is missing or damaged.
    """
    for path, sha256 in (first, second):
        if fault := fault_of(path, sha256):
            raise DataError(fault)
    return list(_differences(*first, *second))


@lru_cache(maxsize=64)
def _hash(path: Path, changed_ns: int, size: int) -> str:
    return hash_of(path)


@lru_cache(maxsize=8)
def _differences(first: Path, first_hash: str, second: Path, second_hash: str) -> tuple[Difference, ...]:
    try:
        mine, theirs = ({t.name: t for t in weights.read_layout_of(path).tensors} for path in (first, second))
        return tuple(_difference(first, mine.get(name), second, theirs.get(name)) for name in sorted({*mine, *theirs}))
    except (Refused, OSError) as error:
        raise DataError(f"{first} and {second} cannot be compared: {error}") from None


def _difference(first: Path, mine: weights.Tensor | None, second: Path, theirs: weights.Tensor | None) -> Difference:
    there = mine or theirs
    assert there is not None
    if mine is None or theirs is None:
        return Difference(there.name, there.shape, note=f"only in the {'second' if mine is None else 'first'}")
    if mine.shape != theirs.shape:
        return Difference(mine.name, mine.shape, note=f"shape {list(mine.shape)} and {list(theirs.shape)}")
    squares, length, largest = 0.0, 0.0, 0.0
    for one, other in _pairs(first, mine, second, theirs):
        apart = np.abs(other.astype(np.float64) - one)
        squares += float(apart @ apart)
        length += float(one.astype(np.float64) @ one)
        largest = max(largest, float(apart.max(initial=0.0)))
    distance = math.sqrt(squares)
    return Difference(mine.name, mine.shape, distance, distance / math.sqrt(length) if length else None, largest)


def _pairs(
    first: Path, mine: weights.Tensor, second: Path, theirs: weights.Tensor
) -> Iterator[tuple[weights.AnyArray, weights.AnyArray]]:
    return zip(weights.pieces_of(first, mine), weights.pieces_of(second, theirs), strict=True)
