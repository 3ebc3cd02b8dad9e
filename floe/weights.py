"""Named arrays <-> bytes in the safetensors format, without torch, piece by piece where memory matters.

Layout (safetensors 0.8, "Format"): 8 bytes little-endian length of the header, the header as JSON, the data.
Our own reader, because the package accepts what must not pass here (duplicate names, NaN, a header of 100 MB)
and cannot read or write a tensor in pieces; the tests hold it to the package in both directions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from floe.errors import Refused
from floe.files import replacing
from floe.files import sync as to_disk
from floe.messages import parse_json

AnyArray = npt.NDArray[Any]
Source = Path | BinaryIO

DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
BYTES = np.dtype(np.uint8)
CODED = DTYPES | {"U8": BYTES}  # of encoded files, which are never used before they are decoded (`floe.encoding`)
_CODES = {dtype: code for code, dtype in CODED.items()}
MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_TENSORS = 10_000
MAX_MAGNITUDE = 1e100
PIECE = 256 * 1024  # elements read at a time


@dataclass(frozen=True)
class Tensor:
    """One array of a file: dtype code, shape, and the byte range in the data part."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The header of a weights file: tensors in the order of their bytes, without holes or overlaps."""

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_bytes(self) -> int:
        return self.tensors[-1].stop if self.tensors else 0

    def difference(self, expected: Layout) -> str:
        """In words, the first name, shape or dtype that is not as expected; empty if nothing."""
        mine = {t.name: t for t in self.tensors}
        theirs = {t.name: t for t in expected.tensors}
        for name in [*theirs, *mine]:
            if name not in mine:
                return f"tensor {name!r} is missing"
            if name not in theirs:
                return f"tensor {name!r} is not expected"
            if mine[name].shape != theirs[name].shape:
                return f"tensor {name!r} has shape {mine[name].shape}, expected {theirs[name].shape}"
            if mine[name].dtype != theirs[name].dtype:
                return f"tensor {name!r} is {mine[name].dtype}, expected {theirs[name].dtype}"
        if self.tensors != expected.tensors:
            return "the tensors are not in the order of their names"
        return ""


def layout_of(arrays: Mapping[str, AnyArray], metadata: Mapping[str, str] | None = None) -> Layout:
    """The layout of named arrays, in the order of their names. Raises `TypeError` for a dtype not in `DTYPES`."""
    tensors: list[Tensor] = []
    for name in sorted(arrays):
        array = arrays[name]
        dtype = array.dtype.newbyteorder("<")
        if dtype not in CODES:
            raise TypeError(f"tensor {name!r} is {array.dtype}; allowed: {', '.join(map(str, CODES))}")
        start = tensors[-1].stop if tensors else 0
        tensors.append(Tensor(name, dtype, array.shape, start, start + array.size * dtype.itemsize))
    return Layout(tuple(tensors), dict(metadata or {}))


def write(
    path: Path, arrays: Mapping[str, AnyArray], metadata: Mapping[str, str] | None = None, *, sync: bool = True
) -> None:
    """Write named arrays atomically, sorted by name: equal arrays give equal bytes. `sync` is that of `replacing`.

    Raises `StoreError`, and `TypeError` for a dtype that has no code.
    """
    found = buffers(arrays, metadata)
    with replacing(path, sync=sync) as file:
        file.writelines(found)


def buffers(arrays: Mapping[str, AnyArray], metadata: Mapping[str, str] | None = None) -> list[memoryview]:
    """The bytes that `write` would write, without a copy of what lies in memory as it would lie in the file.

    Raises `TypeError` for a dtype that has no code.
    """
    layout = layout_of(arrays, metadata)
    ready = (np.ascontiguousarray(arrays[t.name], t.dtype).reshape(-1).view(np.uint8) for t in layout.tensors)
    return [memoryview(header(layout)), *(array.data for array in ready)]


def read(source: Source) -> dict[str, AnyArray]:
    """All arrays of a checked file in memory. Raises `Refused("weights", ...)`.

    The whole is read through one descriptor: a file that takes the place of this one meanwhile is not mixed in. Of an
    open file, too, which stays open: its position is moved.
    """
    with _opened(source) as file:
        layout = read_layout_of(file)
        return {t.name: read_piece(file, t, 0, max(t.elements, 1)).reshape(t.shape) for t in layout.tensors}


def header(layout: Layout) -> bytes:
    """The length and the JSON header, padded with spaces to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": dict(layout.metadata)} if layout.metadata else {}
    for t in layout.tensors:
        entries[t.name] = {"dtype": _CODES[t.dtype], "shape": list(t.shape), "data_offsets": [t.start, t.stop]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_layout_of(source: Source, *, coded: bool = False) -> Layout:
    """Read and check the header of a file, by its path or open; `coded`: it may be an encoded file.

    Raises `Refused("weights", ...)`: sizes that do not add up, holes, overlaps, unknown dtypes, duplicate names.
    """
    with _opened(source) as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise Refused("weights", f"header of {length} bytes in a file of {size}")
        text = file.read(length)
    try:
        layout = _layout(parse_json(text, MAX_HEADER_BYTES), CODED if coded else DTYPES)
    except (Refused, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused("weights", f"not a safetensors header: {error}"[:300]) from None
    if layout.data_bytes != size - 8 - length:
        raise Refused("weights", f"{size - 8 - length} bytes of data, the header describes {layout.data_bytes}")
    return layout


def read_piece(source: Source, tensor: Tensor, at: int, elements: int) -> AnyArray:
    """At most `elements` elements of a flat tensor, from element `at`, of a file whose header has been checked."""
    count = min(elements, tensor.elements - at)
    with _opened(source) as file:
        file.seek(0)
        offset = 8 + int.from_bytes(file.read(8), "little")
        file.seek(offset + tensor.start + at * tensor.dtype.itemsize)
        return np.frombuffer(file.read(count * tensor.dtype.itemsize), tensor.dtype)


def join(sources: Mapping[Path, Collection[str]], out: Path, metadata: Mapping[str, str]) -> str:
    """Write the named tensors of several files into one, in pieces, sorted by name; its SHA-256.

    Raises `Refused`, `StoreError`.
    """
    found = {
        t.name: (path, t) for path, names in sources.items() for t in read_layout_of(path).tensors if t.name in names
    }
    return compose({name: (t, pieces_of(path, t)) for name, (path, t) in found.items()}, out, metadata)


def compose(
    parts: Mapping[str, tuple[Tensor, Iterable[AnyArray]]], out: Path, metadata: Mapping[str, str], *, sync: bool = True
) -> str:
    """Write tensors whose pieces are made as they are written, sorted by name; the SHA-256 of the file.

    Of the given `Tensor` dtype and shape count; its place is a new one. `sync`: the file is on the disk when this
    returns. Raises `StoreError`.
    """
    tensors: list[Tensor] = []
    for name in sorted(parts):
        t, start = parts[name][0], tensors[-1].stop if tensors else 0
        tensors.append(Tensor(name, t.dtype, t.shape, start, start + t.stop - t.start))
    text = header(Layout(tuple(tensors), metadata))
    digest = hashlib.sha256(text)
    with replacing(out, sync=False) as file:
        file.write(text)
        for tensor in tensors:
            for piece in parts[tensor.name][1]:
                data = np.ascontiguousarray(piece, tensor.dtype).data
                digest.update(data)
                file.write(data)
    if sync:
        to_disk(out)
    return digest.hexdigest()


def pieces_of(path: Path, tensor: Tensor) -> Iterator[AnyArray]:
    """A tensor of a checked file, flat, piece by piece."""
    for at in range(0, tensor.elements, PIECE):
        yield read_piece(path, tensor, at, PIECE)


def check_numbers(path: Path) -> Layout:
    """Read a whole file in pieces; raises `Refused("weights", ...)` at the first number that is NaN or too large.

    At most `MAX_MAGNITUDE` for floats and 2^53 for integers: so that no weighted mean overflows or loses whole numbers.
    """
    layout = read_layout_of(path)
    for tensor in layout.tensors:
        limit = min(MAX_MAGNITUDE, float(np.finfo(tensor.dtype).max)) if tensor.dtype.kind == "f" else 2**53
        for number, piece in enumerate(pieces_of(path, tensor)):
            if not (piece.min() >= -limit and piece.max() <= limit):  # NaN is its own least and greatest
                place = int(np.argmin((piece >= -limit) & (piece <= limit)))
                raise Refused("weights", f"tensor {tensor.name!r} has {piece[place]} at {number * PIECE + place}")
    return layout


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if not isinstance(source, Path):
        yield source
        return
    with source.open("rb") as file:
        yield file


def _layout(entries: dict[str, Any], dtypes: Mapping[str, np.dtype[Any]]) -> Layout:
    metadata = entries.pop("__metadata__", {})
    if len(entries) > MAX_TENSORS:
        raise ValueError(f"{len(entries)} tensors, at most {MAX_TENSORS}")
    if not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata must be text")
    tensors = sorted((_tensor(name, entry, dtypes) for name, entry in entries.items()), key=lambda t: (t.start, t.stop))
    end = 0
    for t in tensors:
        if t.start != end:
            raise ValueError(f"tensor {t.name[:80]!r} starts at {t.start}, not at {end}")
        end = t.stop
    return Layout(tuple(tensors), metadata)


def _tensor(name: str, entry: dict[str, Any], dtypes: Mapping[str, np.dtype[Any]]) -> Tensor:
    if entry.keys() != {"dtype", "shape", "data_offsets"} or not 0 < len(name) <= 256:
        raise ValueError(f"entry {name[:80]!r}")
    dtype, shape, (start, stop) = dtypes[entry["dtype"]], entry["shape"], entry["data_offsets"]
    numbers = [*shape, start, stop]
    if type(shape) is not list or len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise ValueError(f"shape or offsets of {name[:80]!r}")
    if math.prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"shape {shape} of {name[:80]!r} does not fill {stop - start} bytes")
    return Tensor(name, dtype, tuple(shape), start, stop)
