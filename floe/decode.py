"""Reading encoded files: piece by piece to the file that everything behind it knows. Nothing in them is trusted.

Names, shapes and dtypes are held to what is expected before a tensor is read, and what is read to its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from floe import weights
from floe.coding import SEGMENT, Coding, Floats, coded_bytes, decoded
from floe.compression import inflated
from floe.encoding import Coded, Described, Of, describe
from floe.errors import Refused


def decode_update(source: Path, out: Path, *, base: Path, layout: weights.Layout, coding: Coding) -> str:
    """Write an encoded update as full weights, base + difference in float32; the SHA-256 of the file.

    Its metadata are the base's, and over them its own. `layout` is that of an update, `base` the model that it was made
    from, and `coding` what the plan asks for. Whether the numbers are finite is still to be checked. Not synced. Raises
    `Refused("weights", ...)`, `StoreError`.
    """
    found = describe(source)
    _check(found, "difference", coding)
    if difference := found.decoded.difference(layout):
        raise Refused("weights", difference)
    known = {t.name: (t.dtype, t.shape) for t in weights.read_layout_of(base).tensors}
    for name, coded in found.encoding.tensors.items():
        if known.get(name) != (weights.DTYPES["F32"], coded.shape):
            raise Refused("weights", f"tensor {name!r} is a difference, and not in the base as it is here")
    return _compose(source, found, out, base)


def decode_model(source: Path, out: Path, max_bytes: int) -> str:
    """Write an encoded global model as it was; the SHA-256 of the file. `out` may be `source`; not synced.

    Of more than `max_bytes` it is refused. Raises `Refused` (`weights`, `oversized`), `StoreError`.
    """
    found = describe(source)
    _check(found, "model", "float16")
    if found.decoded.data_bytes > max_bytes:
        raise Refused("oversized", f"decoded it has {found.decoded.data_bytes} bytes, at most {max_bytes} accepted")
    return _compose(source, found, out)


def _check(found: Described, of: Of, coding: Coding) -> None:
    if found.encoding.of != of:
        raise Refused("weights", f"a {found.encoding.of}, where a {of} was asked for")
    for name, coded in found.encoding.tensors.items():
        if coded.coding != coding:
            raise Refused("weights", f"tensor {name!r} is coded as {coded.coding}, not {coding}")


def _compose(source: Path, found: Described, out: Path, base: Path | None = None) -> str:
    wire = {t.name: t for t in found.wire.tensors}
    like = weights.read_layout_of(base) if base else weights.Layout(())
    bases = {t.name: t for t in like.tensors}
    parts: dict[str, tuple[weights.Tensor, Iterator[weights.AnyArray]]] = {}
    for t in found.decoded.tensors:
        pieces = weights.pieces_of(source, wire[t.name])
        if coded := found.encoding.tensors.get(t.name):
            pieces = _values(pieces, coded)
            if base is not None:
                pieces = _added(pieces, base, bases[t.name])
        parts[t.name] = (t, pieces)
    return weights.compose(parts, out, {**like.metadata, **found.decoded.metadata}, sync=False)


def _values(pieces: Iterator[weights.AnyArray], coded: Coded) -> Iterator[Floats]:
    """The values of a coded tensor, segment by segment."""
    data: Iterable[bytes] = (piece.tobytes() for piece in pieces)
    held, stream = bytearray(), iter(inflated(data, coded.coded_bytes) if coded.zstd else data)
    for at in range(0, coded.elements, SEGMENT):
        elements = min(SEGMENT, coded.elements - at)
        size = coded_bytes(elements, coded.coding)
        while len(held) < size:
            held += next(stream)
        yield decoded(bytes(held[:size]), elements, coded.coding, coded.exponent)
        del held[:size]
    for _ in stream:  # nothing more comes, but only then is it known that the frame has ended
        pass


def _added(pieces: Iterator[Floats], base: Path, tensor: weights.Tensor) -> Iterator[weights.AnyArray]:
    for number, piece in enumerate(pieces):
        with np.errstate(over="ignore"):  # infinite then, and refused as any number that is not finite
            yield weights.read_piece(base, tensor, number * SEGMENT, SEGMENT) + piece
