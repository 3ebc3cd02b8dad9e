"""Encoded files, valid and invalid: what encodes them here is not Floe, which only has to read them."""

from __future__ import annotations

import json
import struct
from typing import Any

import zstandard
from material import SCHEMA, Json, weights_file

Entries = dict[str, tuple[str, list[int], bytes]]
BLOCK, SEGMENT = 1024, 262_144


def planes(data: bytes, width: int) -> bytes:
    return b"".join(data[at::width] for at in range(width))


def halves(values: list[float]) -> bytes:
    return planes(struct.pack(f"<{len(values)}e", *values), 2)


def floats(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def steps(scales: list[float], values: list[int]) -> bytes:
    return floats(scales) + struct.pack(f"{len(values)}b", *values)


def frame(data: bytes, level: int = 3, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(level=level, **options).compress(data)


def about(coding: str, shape: list[int], *, zstd: bool = False) -> Json:
    return {"coding": coding, "dtype": "F32", "shape": shape, "zstd": zstd}


def file(of: str, tensors: dict[str, tuple[Json, bytes]], whole: Entries | None = None, **more: Any) -> bytes:
    entries: Entries = {name: ("U8", [len(data)], data) for name, (_, data) in tensors.items()}
    encoding = {"of": of, "tensors": {name: told for name, (told, _) in tensors.items()}, **more}
    schema = {"schema": SCHEMA} if of == "model" else {}
    return weights_file(entries | (whole or {}), {**schema, "encoding": json.dumps(encoding)})


def plain(tensors: dict[str, tuple[list[int], list[float]]], whole: Entries | None = None) -> bytes:
    entries: Entries = {name: ("F32", shape, floats(values)) for name, (shape, values) in tensors.items()}
    return weights_file(entries | (whole or {}), {"schema": SCHEMA})


def valid() -> list[Json]:
    count: Entries = {"n": ("I64", [1], struct.pack("<q", 7))}
    ones: Entries = {"n": ("I64", [1], struct.pack("<q", 1))}
    three = plain({"w": ([3], [1.0, 1.0, 1.0])})
    long, zeros = BLOCK + 2, plain({"w": ([BLOCK + 2], [0.0] * (BLOCK + 2))})
    many = [((at * 7) % 255) - 127 for at in range(long)]
    more = SEGMENT + 2
    segments = halves([1.0] * SEGMENT) + halves([2.0, -0.5])
    cases: list[tuple[str, str, bytes, bytes, bytes]] = [
        ("the example of section 8", "int8",
         file("difference", {"w": (about("int8", [3]), steps([0.5], [2, -1, 127]))}), three,
         plain({"w": ([3], [2.0, 0.5, 64.5])})),
        ("two blocks, zstd", "int8",
         file("difference", {"w": (about("int8", [long], zstd=True), frame(steps([0.25, 2.0], many)))}), zeros,
         plain({"w": ([long], [s * (0.25 if at < BLOCK else 2.0) for at, s in enumerate(many)])})),
        ("float16, and a counter as it is", "float16",
         file("difference", {"w": (about("float16", [1, 3]), halves([0.5, -1.0, 65504.0]))}, count),
         plain({"w": ([1, 3], [1.0, 1.0, 0.0])}, ones), plain({"w": ([1, 3], [1.5, 0.0, 65504.0])}, count)),
        ("float16 with an exponent", "float16",
         file("difference", {"w": (about("float16", [3]) | {"exponent": -20}, halves([0.5, -0.75, 2.0**-24]))}),
         plain({"w": ([3], [0.0, 0.0, 1.0])}), plain({"w": ([3], [2.0**-21, -0.75 * 2.0**-20, 1.0])})),
        ("float16 with exponents at both ends", "float16",
         file("difference", {"v": (about("float16", [1]) | {"exponent": 127}, halves([1.0])),
                             "w": (about("float16", [2]) | {"exponent": -148}, halves([0.5, 0.25]))}),
         plain({"v": ([1], [0.0]), "w": ([2], [0.0, 0.0])}),
         plain({"v": ([1], [2.0**127]), "w": ([2], [2.0**-149, 0.0])})),
        ("float32", "float32", file("difference", {"w": (about("float32", [3]), planes(floats([0.5, -1.0, 3e38]), 4))}),
         three, plain({"w": ([3], [1.5, 0.0, 3e38])})),
        ("a scalar", "int8", file("difference", {"w": (about("int8", []), steps([1.0], [1]))}),
         plain({"w": ([], [1.0])}), plain({"w": ([], [2.0])})),
        ("added in float32", "float32",
         file("difference", {"w": (about("float32", [1]), planes(floats([2.0**-25]), 4))}),
         plain({"w": ([1], [1.0])}), plain({"w": ([1], [1.0])})),
        ("nothing is coded", "int8", file("difference", {}, {"w": ("F32", [3], floats([1.0, 2.0, 3.0]))}), three,
         plain({"w": ([3], [1.0, 2.0, 3.0])})),
        ("a model", "float16",
         file("model", {"é": (about("float16", [2]), halves([-0.0, 1.5]))}, {"scaling.mean": ("F64", [1], bytes(8))}),
         b"", plain({"é": ([2], [-0.0, 1.5])}, {"scaling.mean": ("F64", [1], bytes(8))})),
        ("a model with an exponent", "float16",
         file("model", {"w": (about("float16", [1]) | {"exponent": -30}, halves([1.5]))}),
         b"", plain({"w": ([1], [1.5 * 2.0**-30])})),
    ]  # fmt: skip
    found: list[Json] = [
        {"name": name, "coding": coding, "file": content.hex(), "base": base.hex(), "decoded": right.hex()}
        for name, coding, content, base, right in cases
    ]
    large = file("model", {"w": (about("float16", [more], zstd=True), frame(segments, 19))})
    rule = {"w": {"shape": [more], "first": 1.0, "last": [2.0, -0.5]}}
    found.append({"name": "a model of two segments", "coding": "float16", "file": large.hex(), "base": "",
                  "decoded_rule": rule})  # fmt: skip
    return found


def invalid() -> list[Json]:
    like = plain({"w": ([3], [1.0, 1.0, 1.0])})
    right = steps([0.5], [2, -1, 127])
    int8 = about("int8", [3])
    nan, infinity = float("nan"), float("inf")

    def of(told: Json, data: bytes, **more: Any) -> bytes:
        return file("difference", {"w": (told, data)}, **more)

    def zipped(data: bytes) -> bytes:
        return of(about("int8", [3], zstd=True), data)

    half_file = of(about("float16", [3]), halves([0.0] * 3))
    long = steps([0.5], [1] * 100)
    of_long, like_long = about("int8", [100], zstd=True), plain({"w": ([100], [0.0] * 100)})
    cases: list[tuple[str, bytes]] = [
        ("not encoded", like),
        ("an encoding that is not JSON", weights_file({"w": ("U8", [7], right)}, {"encoding": "{"})),
        ("an encoding with a member twice",
         weights_file({"w": ("U8", [7], right)}, {"encoding": '{"of":"difference","of":"difference","tensors":{}}'})),
        ("an unknown member", of(int8, right, more=1)),
        ("an unknown member of a tensor", of(int8 | {"more": 1}, right)),
        ("an unknown coding", of(int8 | {"coding": "int4"}, right)),
        ("another coding than the plan's", half_file),
        ("a model's", file("model", {"w": (int8, right)})),
        ("an exponent of 8 bits", of(int8 | {"exponent": 1}, right)),
        ("another dtype", of(int8 | {"dtype": "F16"}, right)),
        ("another shape", of(int8 | {"shape": [1, 3]}, right)),
        ("a tensor more", file("difference", {"w": (int8, right), "x": (int8, right)})),
        ("a tensor missing", file("difference", {})),
        ("coded, and not described", weights_file({"w": ("U8", [7], right)},
                                                  {"encoding": '{"of":"difference","tensors":{}}'})),
        ("described, and not coded",
         weights_file({"w": ("F32", [3], bytes(12))},
                      {"encoding": json.dumps({"of": "difference", "tensors": {"w": int8}})})),
        ("two dimensions", weights_file({"w": ("U8", [1, 7], right)},
                                        {"encoding": json.dumps({"of": "difference", "tensors": {"w": int8}})})),
        ("a byte less", of(int8, right[:-1])),
        ("a byte more", of(int8, right + b"\0")),
        ("a step of -128", of(int8, right[:-1] + b"\x80")),
        ("a negative scale", of(int8, steps([-0.5], [1, 1, 1]))),
        ("a scale that is infinite", of(int8, steps([infinity], [1, 1, 1]))),
        ("a scale that is no number", of(int8, steps([nan], [1, 1, 1]))),
        ("a sum that is infinite", of(int8, steps([3e38], [127, 1, 1]))),
        ("zstd that is not smaller", zipped(frame(right))),
        ("zstd that is none", of(of_long, long[:50])),
        ("zstd that is cut", of(of_long, frame(long)[:-1])),
        ("zstd and a byte", of(of_long, frame(long) + b"\0")),
        ("zstd and another frame", of(of_long, frame(long) + frame(b""))),
        ("zstd of less", of(of_long, frame(long[:-1]))),
        ("zstd of more", of(of_long, frame(long + b"\1"))),
        ("zstd of much more", of(of_long, frame(bytes(2_000_000)))),
    ]  # fmt: skip
    expected = {name: like_long for name, _ in cases if name.startswith("zstd ") and "not smaller" not in name}
    found = [
        {"name": name, "coding": "int8", "file": content.hex(), "base": expected.get(name, like).hex(),
         "like": expected.get(name, like).hex(), "reason": "weights"}
        for name, content in cases
    ]  # fmt: skip
    lacks = plain({"v": ([3], [1.0, 1.0, 1.0])})
    found.append({"name": "a base without the tensor", "coding": "int8", "file": of(int8, right).hex(),
                  "base": lacks.hex(), "like": like.hex(), "reason": "weights"})  # fmt: skip
    for name, exponent in (("an exponent that makes it infinite", 127), ("an exponent too large", 128),
                           ("an exponent too small", -149), ("an exponent with a fraction", 0.5)):  # fmt: skip
        shifted = of(about("float16", [3]) | {"exponent": exponent}, halves([2.0, 0.0, 0.0]))
        found.append({"name": name, "coding": "float16", "file": shifted.hex(), "base": like.hex(), "like": like.hex(),
                      "reason": "weights"})  # fmt: skip
    scale = file("model", {"w": (int8, right)})
    found.append({"name": "a model in 8 bits", "coding": "float16", "file": scale.hex(), "base": "", "like": like.hex(),
                  "reason": "weights"})  # fmt: skip
    return found
