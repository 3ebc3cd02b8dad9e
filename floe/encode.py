"""Writing encoded files: an update as its difference to the base model, a global model whose values are float16.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019, Algorithm 1): what rounding took from an update, the
residual, is added to the difference of the next.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from floe import weights
from floe.coding import (
    SEGMENT,
    Coding,
    Floats,
    can_code,
    coded,
    coded_bytes,
    coded_half,
    decoded,
    exponent_of,
    generator,
    in_half_range,
    is_half,
    largest_of,
    to_half,
)
from floe.compression import write_smaller
from floe.encoding import MEMBER, Coded, Encoding, Of
from floe.files import replacing, storing

LEAST = 64  # elements: of a smaller tensor the description would cost what coding it saves
F32 = weights.DTYPES["F32"]
Arrays = Mapping[str, weights.AnyArray]


@dataclass(frozen=True)
class EncodedUpdate:
    """The bytes of an encoded update as `parcel.pack` takes them, and what rounding took, by tensor."""

    buffers: list[memoryview]
    residual: dict[str, weights.AnyArray]


def encode_update(
    trained: Arrays, base: Arrays, residual: Arrays, coding: Coding, metadata: Mapping[str, str],
    *, seed: int, device: str, round: int,
) -> EncodedUpdate:  # fmt: skip
    """An update as the difference to its base, plus the residual of the update before.

    Coded are float32 tensors of `LEAST` elements or more that the base has too and whose difference `can_code`; all
    others stand as they are, and their residuals stay. The same arguments give the same bytes. Float16 and int8 leave a
    residual, less than one step of the coding; one of another shape than its tensor does not count.
    """
    file, entries = io.BytesIO(), dict[str, Coded]()
    left: dict[str, weights.AnyArray] = {}
    body = _Body(file)
    for name in sorted(trained):
        array = np.asarray(trained[name])
        before = _fitting(array, residual.get(name))
        values = _difference(array, base.get(name), before)
        if values is None or not can_code(largest := largest_of(values)):
            (tensor,) = weights.layout_of({name: array}).tensors
            body.add(tensor, [array])
            left.update({} if before is None else {name: before})
            continue
        kept, exponent = np.zeros_like(values), exponent_of(largest, coding)
        pieces = partial(_coded, values, coding, exponent, kept, ("update", seed, device, round, name))
        zstd = body.add_coded(name, values.size, coding, pieces)
        entries[name] = Coded(coding, "F32", array.shape, zstd, exponent)
        if coding != "float32":
            left[name] = kept.reshape(array.shape)
    header = body.header("difference", entries, metadata)
    return EncodedUpdate([memoryview(header), file.getbuffer()], left)


def encode_model(model: Path, out: Path) -> None:
    """Write a global model encoded: the tensors whose values are all float16 as that, so that nothing is lost.

    Piece by piece. Raises `StoreError`.
    """
    scratch = out.with_name(f".{out.name}.body.part")
    with storing(scratch):
        scratch.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("w+b") as file, replacing(out, sync=False) as whole:
                whole.write(_encode_tensors(model, _Body(file)))
                file.seek(0)
                shutil.copyfileobj(file, whole)
        finally:
            scratch.unlink(missing_ok=True)


def round_model(model: Path, *, seed: int, round: int) -> str:
    """Round a global model, in its place, to values that float16 has; the SHA-256 of the file.

    Tensors that float16 has no range for, those of few elements, and those that are not float32 stay as they are. The
    same model, seed and round give the same bytes; a model that has been rounded stays as it is. Piece by piece.
    Raises `StoreError`.
    """
    layout = weights.read_layout_of(model)
    parts = {t.name: (t, _rounded(model, t, seed, round)) for t in layout.tensors}
    return weights.compose(parts, model, layout.metadata)


class _Body:
    """The data of an encoded file as it grows, with the places of its tensors."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tensors: list[weights.Tensor] = []

    def add(self, tensor: weights.Tensor, pieces: Iterable[weights.AnyArray]) -> None:
        start = self._file.tell()
        for piece in pieces:
            self._file.write(np.ascontiguousarray(piece, tensor.dtype).tobytes())
        self._tensors.append(weights.Tensor(tensor.name, tensor.dtype, tensor.shape, start, self._file.tell()))

    def add_coded(self, name: str, elements: int, coding: Coding, pieces: Callable[[], Iterable[bytes]]) -> bool:
        """Whether it has become a zstd frame."""
        start = self._file.tell()
        zstd = write_smaller(self._file, coded_bytes(elements, coding), pieces)
        stop = self._file.tell()
        self._tensors.append(weights.Tensor(name, weights.BYTES, (stop - start,), start, stop))
        return zstd

    def header(self, of: Of, entries: dict[str, Coded], metadata: Mapping[str, str]) -> bytes:
        about = {**metadata, MEMBER: Encoding(of, entries).to_json()}
        return weights.header(weights.Layout(tuple(self._tensors), about))


def _fitting(array: weights.AnyArray, residual: weights.AnyArray | None) -> weights.AnyArray | None:
    """The residual of a tensor; None if there is none of its shape."""
    return residual if residual is not None and (residual.dtype, residual.shape) == (F32, array.shape) else None


def _difference(
    array: weights.AnyArray, base: weights.AnyArray | None, residual: weights.AnyArray | None
) -> Floats | None:
    """What is to be coded of a tensor, flat; None if it is not to be."""
    if array.dtype != F32 or array.size < LEAST or base is None or (base.dtype, base.shape) != (F32, array.shape):
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # not finite then, and so not coded
        found = array - base
        if residual is not None:
            found = found + residual
    return np.asarray(found, np.float32).reshape(-1)


def _coded(values: Floats, coding: Coding, exponent: int, kept: Floats, key: tuple[str | int, ...]) -> Iterator[bytes]:
    """The coded segments; what rounding takes of the values goes into `kept`."""
    chance = generator(*key)
    for at in range(0, len(values), SEGMENT):
        part = values[at : at + SEGMENT]
        data = coded(part, coding, exponent, chance)
        kept[at : at + SEGMENT] = part - decoded(data, len(part), coding, exponent)
        yield data


def _encode_tensors(model: Path, body: _Body) -> bytes:
    """Put the tensors of a model into the body; the header."""
    layout, entries = weights.read_layout_of(model), {}
    for t in layout.tensors:
        if _may_be_half(t) and all(is_half(piece) for piece in weights.pieces_of(model, t)):
            zstd = body.add_coded(t.name, t.elements, "float16", partial(_halves, model, t))
            entries[t.name] = Coded("float16", "F32", t.shape, zstd)
        else:
            body.add(t, weights.pieces_of(model, t))
    return body.header("model", entries, layout.metadata)


def _halves(model: Path, tensor: weights.Tensor) -> Iterator[bytes]:
    for at in range(0, tensor.elements, SEGMENT):
        yield coded_half(weights.read_piece(model, tensor, at, SEGMENT))


def _rounded(model: Path, tensor: weights.Tensor, seed: int, round: int) -> Iterator[weights.AnyArray]:
    if not _may_be_half(tensor):
        return weights.pieces_of(model, tensor)
    largest = max(float(np.abs(piece).max()) for piece in weights.pieces_of(model, tensor))
    if not in_half_range(largest):
        return weights.pieces_of(model, tensor)
    chance = generator("model", seed, round, tensor.name)
    return (to_half(piece, chance) for piece in weights.pieces_of(model, tensor))


def _may_be_half(tensor: weights.Tensor) -> bool:
    return tensor.dtype == F32 and tensor.elements >= LEAST
