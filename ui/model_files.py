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

from floe import files, weights
from floe.errors import DataError, Refused


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


def fault_of(path: Path, sha256: str, size: int) -> str:
    """Why a file is not the model that the log says, "" if it is. It is read once, until it changes."""
    try:
        about = path.stat()
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    fault = _fault(path, sha256, size, about.st_mtime_ns, about.st_size)
    return f"{path}: {fault}" if fault else ""


def content(path: Path, sha256: str, size: int) -> bytes:
    """The bytes of a model. Raises `DataError` if they are not what the log says."""
    if fault := fault_of(path, sha256, size):
        raise DataError(fault)
    return path.read_bytes()


def differences(first: tuple[Path, str, int], second: tuple[Path, str, int]) -> list[Difference]:
    """Every tensor that either model has, by name; a model is its file, its SHA-256, by which this is kept, and its
    size in bytes.

    Raises `DataError` where a file is missing or damaged.
    """
    for path, sha256, size in (first, second):
        if fault := fault_of(path, sha256, size):
            raise DataError(fault)
    return list(_differences(*first[:2], *second[:2]))


@lru_cache(maxsize=64)
def _fault(path: Path, sha256: str, size: int, changed_ns: int, found_size: int) -> str:
    return files.fault_of(path, sha256, size)


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
