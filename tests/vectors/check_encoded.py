"""Decodes encoded files (PROTOCOL.md, section 8) with `struct` and zstandard: imports nothing of Floe."""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise
from typing import Any

import zstandard
from check_fields import check_struct, parse

Json = dict[str, Any]
BLOCK, SEGMENT, WINDOW = 1024, 262_144, 8_388_608
WIDTH = {"float32": 4, "float16": 2, "int8": 1}
LETTER = {"F16": "e", "F32": "f", "F64": "d", "I64": "q"}


def encoded(case: Json) -> None:
    """A valid file decodes to the one that stands beside it."""
    found = decoded(case | {"like": case.get("decoded")})
    if rule := case.get("decoded_rule"):
        header, data = split(found)
        assert header["w"]["shape"] == rule["w"]["shape"]
        (count,), last = rule["w"]["shape"], rule["w"]["last"]
        assert list(struct.unpack(f"<{count}f", data)) == [rule["w"]["first"]] * (count - len(last)) + last
    else:
        assert found.hex() == case["decoded"]


def decoded(case: Json) -> bytes:
    """The decoded file. Raises `AssertionError`, `ValueError` and others for one that breaks a rule."""
    header, data = split(bytes.fromhex(case["file"]))
    metadata = header.pop("__metadata__")
    told = parse(metadata.pop("encoding").encode(), 8_388_608)
    check_struct(told, "Encoding")
    of_model = not case["base"]
    assert told["of"] == ("model" if of_model else "difference")
    assert {name for name, entry in header.items() if entry["dtype"] == "U8"} == told["tensors"].keys()
    base = values_of(bytes.fromhex(case["base"])) if case["base"] else {}
    if case["base"]:
        metadata = split(bytes.fromhex(case["base"]))[0].get("__metadata__", {}) | metadata
    expected = split(bytes.fromhex(case["like"]))[0] if case["like"] else None
    entries: Json = {"__metadata__": metadata} if metadata else {}
    out = b""
    for name in sorted(header):
        start, stop = header[name]["data_offsets"]
        part, about = data[start:stop], told["tensors"].get(name)
        dtype, shape = (about or header[name])["dtype"], (about or header[name])["shape"]
        if about:
            assert header[name]["shape"] == [len(part)]
            assert about["coding"] == ("float16" if of_model else case["coding"])
            part = sums(values(part, about), None if of_model else base[name], shape)
        assert all(map(math.isfinite, struct.unpack(f"<{math.prod(shape)}{LETTER[dtype]}", part)))
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(out), len(out) + len(part)]}
        out += part
    if expected is not None:
        assert kinds(entries) == kinds(expected), "not what is expected"
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + out


def kinds(header: Json) -> Json:
    return {name: (told["dtype"], told["shape"]) for name, told in header.items() if name != "__metadata__"}


def split(content: bytes) -> tuple[Json, bytes]:
    (length,) = struct.unpack_from("<Q", content)
    header = parse(content[8 : 8 + length], 8_388_608)
    ends = [entry["data_offsets"] for name, entry in sorted(header.items()) if name != "__metadata__"]
    assert all(one[1] == other[0] for one, other in pairwise(ends))
    return header, content[8 + length :]


def values_of(content: bytes) -> dict[str, tuple[list[int], tuple[float, ...]]]:
    header, data = split(content)
    return {
        name: (entry["shape"], struct.unpack(f"<{math.prod(entry['shape'])}f", data[slice(*entry["data_offsets"])]))
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


def sums(differences: list[float], base: tuple[list[int], tuple[float, ...]] | None, shape: list[int]) -> bytes:
    if base is not None:
        assert base[0] == shape, "the base has another"
        differences = [one + other for one, other in zip(base[1], differences, strict=True)]
    return struct.pack(f"<{len(differences)}f", *differences)  # rounds once; OverflowError where it is infinite


def values(part: bytes, about: Json) -> list[float]:
    elements, coding, exponent = math.prod(about["shape"]), about["coding"], about.get("exponent", 0)
    assert exponent == 0 or coding == "float16"
    size = elements * WIDTH[coding] + (4 * -(-elements // BLOCK) if coding == "int8" else 0)
    if about["zstd"]:
        assert len(part) < size
        part = inflated(part, size)
    assert len(part) == size
    found: list[float] = []
    for at in range(0, elements, SEGMENT):
        count = min(SEGMENT, elements - at)
        length = count * WIDTH[coding] + (4 * -(-count // BLOCK) if coding == "int8" else 0)
        found += [rounded(one * 2.0**exponent) for one in segment(part[:length], count, coding)]
        part = part[length:]
    assert all(map(math.isfinite, found))
    return found


def inflated(part: bytes, size: int) -> bytes:
    frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
    found = b""
    try:
        assert zstandard.get_frame_parameters(part).window_size <= WINDOW
        for at in range(0, len(part), 64):
            assert not frame.eof
            found += frame.decompress(part[at : at + 64])
            assert len(found) <= size
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
    assert frame.eof
    assert not frame.unused_data
    return found


def segment(data: bytes, count: int, coding: str) -> list[float]:
    if coding != "int8":
        width = WIDTH[coding]
        numbers = bytes(data[byte * count + at] for at in range(count) for byte in range(width))
        return list(struct.unpack(f"<{count}{'e' if coding == 'float16' else 'f'}", numbers))
    blocks = -(-count // BLOCK)
    scales, steps = struct.unpack_from(f"<{blocks}f", data), struct.unpack_from(f"{count}b", data, 4 * blocks)
    assert all(0 <= scale < math.inf for scale in scales)
    assert min(steps) >= -127
    return [rounded(step * scales[at // BLOCK]) for at, step in enumerate(steps)]


def rounded(value: float) -> float:
    """To float32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
