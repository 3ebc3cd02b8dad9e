"""Numbers in fewer bytes: float32 values as float16 or as 8-bit steps, segment by segment, and back. Pure.

8 bits: a block of 1,024 values shares one scale, the largest magnitude in it over 127; a value becomes a whole number
of scales, rounded up or down by chance so that its mean stays (QSGD: Alistarh et al. 2017, section 3.1, with the
largest in place of the norm). float16: all values of a tensor share a power of two. What is rounded away is the
caller's to keep (`floe.encode`, error feedback).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from floe.errors import Refused

Coding = Literal["float32", "float16", "int8"]
Floats = npt.NDArray[np.float32]

BLOCK = 1024  # values that share a scale
SEGMENT = 256 * BLOCK  # values that are coded at a time
STEPS = 127
LARGEST = 1e38  # so that 127 scales, rounded, are still a float32
LARGEST_HALF = 65504.0
LEAST_HALF = 2.0**-14  # the smallest float16 with full precision
_WIDTH = {"float32": 4, "float16": 2, "int8": 1}
_TINY = np.float32(np.finfo(np.float32).tiny)


def generator(*parts: str | int) -> np.random.Generator:
    """Chance that depends on `parts` alone (Philox: Salmon et al. 2011): what is done again is the same."""
    digest = hashlib.sha256("\n".join(str(part) for part in parts).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))


def coded_bytes(elements: int, coding: Coding) -> int:
    """Bytes of so many coded values."""
    scales = 4 * -(-elements // BLOCK) if coding == "int8" else 0
    return elements * _WIDTH[coding] + scales


def largest_of(values: Floats) -> float:
    """The largest magnitude; NaN if one is."""
    return float(np.abs(values).max(initial=0.0))


def can_code(largest: float) -> bool:
    """Whether the values of a tensor of this largest magnitude can be coded: none beyond 1e38 or NaN."""
    return largest <= LARGEST


def exponent_of(largest: float, coding: Coding) -> int:
    """The power of two by which the values of a tensor are divided: 0, but for float16 where it is not `in_half_range`.

    Divided, the largest is from 0.5 to 1: no value is off by more than 2^-11 of it.
    """
    return 0 if coding != "float16" or in_half_range(largest) else math.frexp(largest)[1]


def in_half_range(largest: float) -> bool:
    """Whether float16 is for a tensor of this largest magnitude: at most 65504 and at least 2^-14, or 0.

    Then no value is off by more than 2^-11 of the largest where it becomes the nearest float16, and by more than 2^-10
    where chance takes it up or down.
    """
    return largest == 0.0 or LEAST_HALF <= largest <= LARGEST_HALF


def coded(values: Floats, coding: Coding, exponent: int, chance: np.random.Generator) -> bytes:
    """The bytes of at most `SEGMENT` values of a tensor that `can_code`, with its `exponent_of`; `chance` is drawn from
    for int8 only.
    """
    if coding == "int8":
        return _stepped(values, chance)
    return coded_half(np.ldexp(values, -exponent)) if coding == "float16" else _planes(values.astype("<f4"))


def coded_half(values: Floats) -> bytes:
    """The bytes of values as the nearest float16."""
    return _planes(values.astype("<f2"))


def decoded(data: bytes, elements: int, coding: Coding, exponent: int) -> Floats:
    """The values in `coded_bytes(elements, coding)` bytes. Raises `Refused("weights", ...)`: a number that is none."""
    if coding == "int8":
        return _from_steps(data, elements)
    planes = np.frombuffer(data, np.uint8).reshape(_WIDTH[coding], elements)
    found = np.ascontiguousarray(planes.T).view("<f2" if coding == "float16" else "<f4").reshape(elements)
    with np.errstate(over="ignore"):  # infinite then, and refused
        values = np.asarray(np.ldexp(found.astype(np.float32), exponent), np.float32)
    if not np.isfinite(values).all():
        raise Refused("weights", f"a coded {coding} is not finite")
    return values


def is_half(values: Floats) -> bool:
    """Whether every value is a float16."""
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16) == values).all())


def to_half(values: Floats, chance: np.random.Generator) -> Floats:
    """Values that float16 has, up or down by chance so that the mean stays; those that it has, as they are.

    By chance, for a step that is less than half the distance of two float16 would never be taken otherwise (Gupta et
    al. 2015, section 3.2). For a tensor `in_half_range`.
    """
    near = values.astype(np.float16)
    toward = np.where(values > near, np.float16(np.inf), np.float16(-np.inf)).astype(np.float16)
    other = np.where(near == values, near, np.nextafter(near, toward)).astype(np.float32)
    rounded = near.astype(np.float32)
    gap = np.abs(other - rounded)
    share = np.divide(np.abs(values - rounded), gap, out=np.zeros_like(values), where=gap > 0)
    return np.where(chance.random(len(values), dtype=np.float32) < share, other, rounded)


def _stepped(values: Floats, chance: np.random.Generator) -> bytes:
    blocks = np.zeros((-(-len(values) // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[: len(values)] = values
    scales = np.abs(blocks).max(axis=1) / np.float32(STEPS)
    scales[scales < _TINY] = 0  # below it a scale has no precision left: such a block is 0
    steps = np.divide(blocks, scales[:, None], out=np.zeros_like(blocks), where=scales[:, None] > 0)
    steps.reshape(-1)[: len(values)] += chance.random(len(values), dtype=np.float32)
    whole = np.clip(np.floor(steps), -STEPS, STEPS).astype(np.int8)
    data = scales.astype("<f4").tobytes() + whole.reshape(-1)[: len(values)].tobytes()
    return bytes(data)


def _from_steps(data: bytes, elements: int) -> Floats:
    count = -(-elements // BLOCK)
    scales = np.frombuffer(data, "<f4", count)
    steps = np.frombuffer(data, np.int8, elements, 4 * count)
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise Refused("weights", "a scale is negative or not finite")
    if (steps < -STEPS).any():
        raise Refused("weights", f"a step of {int(steps.min())}, the least is {-STEPS}")
    with np.errstate(over="ignore"):  # infinite then, and refused as any number that is not finite
        return np.asarray(steps * np.repeat(scales, BLOCK)[:elements], np.float32)


def _planes(values: npt.NDArray[Any]) -> bytes:
    """First the low bytes of all values, then the next: bytes that resemble each other lie together."""
    return bytes(values.view(np.uint8).reshape(len(values), values.itemsize).T.tobytes())
