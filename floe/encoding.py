"""Encoded files: a safetensors file whose metadata says how its tensors are coded (`PROTOCOL.md`, "Encoded files").

The description, and reading it with nothing taken on trust; `floe.encode` writes such files, `floe.decode` reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from floe import weights
from floe.coding import Coding, coded_bytes
from floe.errors import Refused
from floe.messages import parse_json

MEMBER = "encoding"  # of the metadata

Of = Literal["difference", "model"]


class Coded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one tensor of an encoded file is coded, and what it is when it is decoded."""

    coding: Annotated[Coding, Meta(description="what its values are coded as")]
    dtype: Annotated[Literal["F32"], Meta(description="dtype of the tensor")]
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=2**48)], ...], Meta(max_length=8, description="shape of the tensor")
    ]
    zstd: Annotated[bool, Meta(description="whether its bytes are a zstd frame")]
    exponent: Annotated[
        int, Meta(ge=-148, le=127, description="float16: a value is the number times 2 to this; 0 otherwise")
    ] = 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def coded_bytes(self) -> int:
        """Before zstd."""
        return coded_bytes(self.elements, self.coding)


class Encoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the metadata of an encoded file says, as JSON text."""

    of: Annotated[Of, Meta(description="what the coded values are: differences to the base, or a model's own")]
    tensors: Annotated[
        dict[str, Coded], Meta(max_length=weights.MAX_TENSORS, description="by name; the others stand as they are")
    ]

    def to_json(self) -> str:
        """Canonical: sorted, without spaces."""
        return json.dumps(msgspec.to_builtins(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Described:
    """The header of an encoded file: `wire` is what lies in it, `decoded` what it becomes."""

    encoding: Encoding
    wire: weights.Layout
    decoded: weights.Layout


def is_encoded(source: weights.Source) -> bool:
    """Whether a file says that it is encoded. Raises `Refused("weights", ...)` for a header that is none."""
    return MEMBER in weights.read_layout_of(source, coded=True).metadata


def describe(source: weights.Source) -> Described:
    """Read the header of an encoded file. Raises `Refused("weights", ...)` where it contradicts itself."""
    wire = weights.read_layout_of(source, coded=True)
    encoding = _parsed(wire.metadata)
    found = {t.name: t for t in wire.tensors}
    for name in encoding.tensors.keys() ^ {t.name for t in wire.tensors if t.dtype == weights.BYTES}:
        raise Refused("weights", f"tensor {name[:80]!r} is coded and not described, or described and not coded")
    for name, coded in encoding.tensors.items():
        _check(found[name], coded)
    metadata = {key: value for key, value in wire.metadata.items() if key != MEMBER}
    return Described(encoding, wire, _decoded_layout(wire, encoding.tensors, metadata))


def _parsed(metadata: Mapping[str, str]) -> Encoding:
    if MEMBER not in metadata:
        raise Refused("weights", "not encoded, where an encoded file was asked for")
    try:
        return msgspec.convert(parse_json(metadata[MEMBER].encode(), weights.MAX_HEADER_BYTES), Encoding)
    except (msgspec.ValidationError, Refused) as error:
        raise Refused("weights", f"not an encoding: {error}"[:300]) from None


def _check(tensor: weights.Tensor, coded: Coded) -> None:
    size, full = tensor.elements, coded.coded_bytes
    if len(tensor.shape) != 1 or not (0 < size < full if coded.zstd else size == full):
        raise Refused("weights", f"tensor {tensor.name!r} of {size} bytes, coded it has {full}")
    if coded.exponent and coded.coding != "float16":
        raise Refused("weights", f"tensor {tensor.name!r} is coded as {coded.coding}, which has no exponent")


def _decoded_layout(wire: weights.Layout, coded: Mapping[str, Coded], metadata: Mapping[str, str]) -> weights.Layout:
    tensors: list[weights.Tensor] = []
    for t in sorted(wire.tensors, key=lambda t: t.name):
        start = tensors[-1].stop if tensors else 0
        dtype: np.dtype[Any] = weights.DTYPES[coded[t.name].dtype] if t.name in coded else t.dtype
        shape = coded[t.name].shape if t.name in coded else t.shape
        tensors.append(weights.Tensor(t.name, dtype, shape, start, start + math.prod(shape) * dtype.itemsize))
    return weights.Layout(tuple(tensors), metadata)
