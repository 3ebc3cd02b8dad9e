"""Encoded files: what goes in comes out, error feedback, and nothing else than what is described passes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from safetensors.numpy import load_file

from floe import weights
from floe.coding import SEGMENT, Coding
from floe.compression import MAX_WINDOW, inflated
from floe.decode import decode_model, decode_update
from floe.encode import LEAST, EncodedUpdate, encode_model, encode_update, round_model
from floe.encoding import MEMBER, describe, is_encoded
from floe.errors import Refused
from floe.files import hash_of

Arrays = Mapping[str, weights.AnyArray]
CODINGS: tuple[Coding, ...] = ("float32", "float16", "int8")
SCHEMA = {"schema": '{"shape":[3],"classes":2}'}


def model(seed: int = 0) -> dict[str, weights.AnyArray]:
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(scale=0.1, size=(8, 3, 5, 5)).astype(np.float32),
        "dense.weight": rng.normal(size=(700, 400)).astype(np.float32),  # more than one segment
        "dense.bias": np.zeros(7, np.float32),
        "norm.count": np.array(41, np.int64),
        "wide": rng.normal(size=500),
    }


def step_from(base: Arrays, seed: int = 1, scale: float = 1e-3) -> dict[str, weights.AnyArray]:
    rng = np.random.default_rng(seed)
    return {
        name: array + 1
        if array.dtype.kind == "i"
        else (array + rng.normal(scale=scale, size=array.shape)).astype(array.dtype)
        for name, array in base.items()
    }


def encoded(trained: Arrays, base: Arrays, coding: Coding, residual: Arrays | None = None, **key: Any) -> EncodedUpdate:
    key = {"seed": 7, "device": "ann", "round": 3} | key
    return encode_update(trained, base, residual or {}, coding, SCHEMA, **key)


def through(
    folder: Path, trained: Arrays, base: Arrays, coding: Coding, update: EncodedUpdate | None = None
) -> dict[str, weights.AnyArray]:
    """What the aggregator has of an update."""
    weights.write(folder / "base", base)
    (folder / "encoded").write_bytes(b"".join((update or encoded(trained, base, coding)).buffers))
    decode_update(
        folder / "encoded", folder / "out", base=folder / "base", layout=weights.layout_of(trained), coding=coding
    )
    return weights.read(folder / "out")


@pytest.mark.parametrize("coding", CODINGS)
def test_an_update_comes_out_as_full_weights_close_to_what_went_in(tmp_path: Path, coding: Coding) -> None:
    base = model()
    trained = step_from(base)
    found = through(tmp_path, trained, base, coding)
    assert weights.read_layout_of(tmp_path / "out").difference(weights.layout_of(trained)) == ""
    assert weights.read_layout_of(tmp_path / "out").metadata == SCHEMA
    near = {"float32": 1e-6, "float16": 5e-6, "int8": 6e-5}[coding]
    for name, array in trained.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=near)
    for name in ("dense.bias", "norm.count", "wide"):
        assert found[name].tobytes() == trained[name].tobytes()


@pytest.mark.parametrize(("coding", "fewer"), [("float32", 1.2), ("float16", 2.0), ("int8", 3.9)])
def test_an_encoded_update_is_that_much_smaller(coding: Coding, fewer: float) -> None:
    base = {"w": model()["dense.weight"]}
    plain = sum(map(len, weights.buffers(step_from(base), SCHEMA)))
    assert plain > fewer * sum(map(len, encoded(step_from(base), base, coding).buffers))


@pytest.mark.parametrize("coding", CODINGS)
def test_the_same_update_again_is_the_same_bytes_and_another_round_or_device_rounds_otherwise(coding: Coding) -> None:
    base = model()
    trained = step_from(base)
    first = b"".join(encoded(trained, base, coding).buffers)
    assert first == b"".join(encoded(trained, base, coding).buffers)
    others = [
        b"".join(encoded(trained, base, coding, **key).buffers)
        for key in ({"round": 4}, {"device": "bob"}, {"seed": 8})
    ]
    assert (first in others) == (coding != "int8")


@pytest.mark.parametrize("coding", ["float16", "int8"])
def test_with_error_feedback_the_sum_of_many_updates_is_right_within_one_step(tmp_path: Path, coding: Coding) -> None:
    base = {"w": np.zeros(1500, np.float32)}
    wanted = np.random.default_rng(0).normal(scale=1e-3, size=1500).astype(np.float32)
    wanted[0] = 1.0  # a block whose steps are larger than all else in it
    residual: Arrays = {}
    total, step = np.zeros(1500), 2 / 127 if coding == "int8" else 2**-11
    for round in range(60):
        update = encoded({"w": wanted}, base, coding, residual, round=round)
        residual = update.residual
        total += through(tmp_path, {"w": wanted}, base, coding, update)["w"]
    assert np.abs(total - 60 * wanted.astype(np.float64)).max() < step + 60 * 1e-7
    assert np.abs(residual["w"]).max() < step


def test_what_rounding_took_is_what_the_residual_says(tmp_path: Path) -> None:
    base = model()
    trained = step_from(base)
    update = encoded(trained, base, "int8")
    found = through(tmp_path, trained, base, "int8", update)
    assert set(update.residual) == {"conv.weight", "dense.weight"}
    for name, residual in update.residual.items():
        np.testing.assert_allclose(found[name] + residual, trained[name], rtol=0, atol=1e-6)


def test_float32_leaves_no_residual_and_a_residual_of_another_shape_does_not_count() -> None:
    base = model()
    trained = step_from(base)
    assert encoded(trained, base, "float32").residual == {}
    odd = {"conv.weight": np.ones(3, np.float32), "dense.weight": np.ones((700, 400)), "gone": np.ones(9, np.float32)}
    assert encoded(trained, base, "int8", odd).buffers == encoded(trained, base, "int8").buffers


def test_tensors_stand_as_they_are_where_coding_them_would_not_do(tmp_path: Path) -> None:
    base = {name: np.zeros(LEAST, np.float32) for name in ("far", "fine", "nan", "small", "tiny", "wide")}
    base["few"] = np.zeros(LEAST - 1, np.float32)
    trained = {name: array + np.float32(0.5) for name, array in base.items()}
    trained["far"] = np.full(LEAST, 70000, np.float32)
    trained["tiny"] = np.full(LEAST, 1e-6, np.float32)
    trained["nan"] = np.full(LEAST, np.nan, np.float32)
    trained["new"] = np.ones(LEAST, np.float32)
    trained["wide"] = np.ones(LEAST)
    trained["small"] = np.ones(LEAST, np.float16)
    (tmp_path / "encoded").write_bytes(b"".join(encoded(trained, base, "float16").buffers))
    told = describe(tmp_path / "encoded").encoding.tensors
    assert {name: one.exponent for name, one in told.items()} == {"far": 17, "fine": 0, "tiny": -19}
    (tmp_path / "encoded").write_bytes(b"".join(encoded(trained, base, "int8").buffers))
    told = describe(tmp_path / "encoded").encoding.tensors
    assert {name: one.exponent for name, one in told.items()} == {"far": 0, "fine": 0, "tiny": 0}


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_differences_of_every_size_go_out_in_half_their_bytes(tmp_path: Path, scale: float) -> None:
    base = {"w": model()["dense.weight"] * np.float32(scale)}
    trained = step_from(base, scale=scale * 1e-2)
    update = encoded(trained, base, "float16")
    assert sum(map(len, update.buffers)) < 0.5 * sum(map(len, weights.buffers(trained, SCHEMA)))
    found = through(tmp_path, trained, base, "float16", update)["w"]
    np.testing.assert_allclose(found + update.residual["w"], trained["w"], rtol=0, atol=scale * 1e-6)
    assert 0 < np.abs(update.residual["w"]).max() <= 2**-11 * np.abs(trained["w"] - base["w"]).max() * 1.001


@pytest.mark.parametrize("coding", ["float16", "int8"])
def test_the_residual_of_a_tensor_that_stands_as_it_is_stays(coding: Coding) -> None:
    base = {"w": np.zeros(LEAST, np.float32)}
    trained, residual = {"w": np.full(LEAST, 2e38, np.float32)}, {"w": np.full(LEAST, 1e-3, np.float32)}
    np.testing.assert_array_equal(encoded(trained, base, coding, residual).residual["w"], residual["w"])
    assert encoded(trained, base, coding, {"w": np.ones(3, np.float32)}).residual == {}


def test_what_is_too_random_for_zstd_goes_as_it_is(tmp_path: Path) -> None:
    base = {name: np.zeros(4096, np.float32) for name in ("even", "random")}
    noise = np.random.default_rng(0).integers(0, 2**32, 4096, np.uint32).view(np.float32)
    trained = {"even": np.ones(4096, np.float32), "random": np.where(np.abs(noise) < 1e38, noise, 0).astype(np.float32)}
    found = through(tmp_path, trained, base, "float32")
    told = describe(tmp_path / "encoded").encoding.tensors
    assert (told["even"].zstd, told["random"].zstd) == (True, False)
    assert found["random"].tobytes() == trained["random"].tobytes()


def test_a_model_is_rounded_once_and_then_travels_without_loss(tmp_path: Path) -> None:
    path, arrays = tmp_path / "m", model() | {"far": np.full(LEAST, 1e5, np.float32)}
    weights.write(path, arrays, SCHEMA)
    before = path.stat().st_size
    sha256 = round_model(path, seed=1, round=2)
    assert (path.stat().st_size, hash_of(path)) == (before, sha256)
    assert round_model(path, seed=5, round=9) == sha256
    encode_model(path, tmp_path / "encoded")
    assert set(describe(tmp_path / "encoded").encoding.tensors) == {"conv.weight", "dense.weight"}
    assert decode_model(tmp_path / "encoded", tmp_path / "out", before) == sha256 == hash_of(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoded", "m", "out"]
    rounded = weights.read(path)
    for name in ("dense.bias", "norm.count", "wide", "far"):
        assert rounded[name].tobytes() == arrays[name].tobytes()
    assert 0 < np.abs(rounded["dense.weight"] - arrays["dense.weight"]).max() < 2**-8


def test_half_of_the_bytes_of_a_model_and_less(tmp_path: Path) -> None:
    weights.write(tmp_path / "m", {"w": model()["dense.weight"]}, SCHEMA)
    round_model(tmp_path / "m", seed=1, round=2)
    encode_model(tmp_path / "m", tmp_path / "encoded")
    assert (tmp_path / "m").stat().st_size > 2.1 * (tmp_path / "encoded").stat().st_size


def test_a_model_that_was_never_rounded_travels_as_it_is(tmp_path: Path) -> None:
    weights.write(tmp_path / "m", model(), SCHEMA)
    encode_model(tmp_path / "m", tmp_path / "encoded")
    assert describe(tmp_path / "encoded").encoding.tensors == {}
    assert decode_model(tmp_path / "encoded", tmp_path / "out", 10**9) == hash_of(tmp_path / "m")


def test_any_reader_of_safetensors_opens_an_encoded_file(tmp_path: Path) -> None:
    base = model()
    through(tmp_path, step_from(base), base, "int8")
    assert load_file(tmp_path / "encoded")["dense.weight"].dtype == np.uint8


def test_an_encoded_file_is_not_taken_for_a_model(tmp_path: Path) -> None:
    base = model()
    through(tmp_path, step_from(base), base, "int8")
    assert is_encoded(tmp_path / "encoded")
    assert not is_encoded(tmp_path / "base")
    with pytest.raises(Refused, match="not a safetensors header"):
        weights.check_numbers(tmp_path / "encoded")


Change = Callable[[dict[str, Any], dict[str, Any]], None]


def changed(path: Path, change: Change, data: bytes | None = None) -> None:
    """The same file with another header: `change` gets the entries and the encoding in it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    encoding = json.loads(header["__metadata__"][MEMBER])
    change(header, encoding)
    if MEMBER in header["__metadata__"]:
        header["__metadata__"][MEMBER] = json.dumps(encoding)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + (content[8 + length :] if data is None else data))


def tensor(name: str, **fields: Any) -> Change:
    return lambda header, encoding: encoding["tensors"][name].update(fields)


WRONG: dict[str, tuple[Change, str]] = {
    "no encoding": (lambda h, e: h["__metadata__"].pop(MEMBER), "not encoded"),
    "an encoding that is a list": (
        lambda h, e: h["__metadata__"].update({MEMBER: "[]"}) or e.clear(),
        "not an encoding",
    ),
    "an unknown field": (lambda h, e: e.update(more=1), "not an encoding"),
    "an unknown field of a tensor": (tensor("w", more=1), "not an encoding"),
    "an unknown coding": (tensor("w", coding="int4"), "not an encoding"),
    "a coding that was not asked for": (tensor("w", coding="float16"), "of"),
    "a dtype that is not coded": (tensor("w", dtype="F64"), "not an encoding"),
    "a shape that is too large": (tensor("w", shape=[2**48, 2**48]), "coded it has"),
    "a shape with a zero": (tensor("w", shape=[0, 1000]), "not an encoding"),
    "a shape with a fraction": (tensor("w", shape=[1000.5]), "not an encoding"),
    "another shape of the same size": (tensor("w", shape=[500, 2]), "expected"),
    "a model's": (lambda h, e: e.update(of="model"), "a model, where"),
    "coded and not described": (lambda h, e: e["tensors"].pop("w"), "not described"),
    "described and not there": (lambda h, e: e["tensors"].update(v=e["tensors"]["w"]), "not coded"),
    "described and not coded": (lambda h, e: e["tensors"].update(b=e["tensors"]["w"]), "not coded"),
    "an exponent of 8 bits": (tensor("w", exponent=1), "no exponent"),
    "an exponent too large": (tensor("w", coding="float16", exponent=128), "not an encoding"),
    "an exponent with a fraction": (tensor("w", exponent=0.5), "not an encoding"),
    "zstd that is none": (tensor("w", zstd=True), "coded it has"),
}


def small(folder: Path) -> tuple[Path, Path, weights.Layout]:
    """An encoded update of 1,000 numbers that zstd does not make smaller, and of 3; its base, its layout."""
    base = {"w": np.zeros((1000,), np.float32), "b": np.zeros(3, np.float32)}
    trained = {"w": np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32), "b": np.ones(3, np.float32)}
    weights.write(folder / "base", base)
    path = folder / "encoded"
    path.write_bytes(b"".join(encoded(trained, base, "int8").buffers))
    assert not describe(path).encoding.tensors["w"].zstd
    return path, folder / "base", weights.layout_of(trained)


@pytest.mark.parametrize("name", WRONG)
def test_a_header_that_is_not_right_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    path, base, layout = small(tmp_path)
    change, words = WRONG[name]
    changed(path, change)
    with pytest.raises(Refused, match=words) as refusal:
        decode_update(path, tmp_path / "out", base=base, layout=layout, coding="int8")
    assert refusal.value.reason == "weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "encoded"]


def test_a_tensor_that_the_base_lacks_is_refused(tmp_path: Path) -> None:
    path, base, layout = small(tmp_path)
    weights.write(base, {"w": np.zeros((1000, 1), np.float32), "b": np.zeros(3, np.float32)})
    with pytest.raises(Refused, match="not in the base"):
        decode_update(path, tmp_path / "out", base=base, layout=layout, coding="int8")


def test_a_model_larger_than_the_cap_is_refused(tmp_path: Path) -> None:
    weights.write(tmp_path / "m", {"w": np.zeros(10**6, np.float32)})
    encode_model(tmp_path / "m", tmp_path / "encoded")
    assert (tmp_path / "encoded").stat().st_size < 2000
    with pytest.raises(Refused, match="4000000 bytes") as refusal:
        decode_model(tmp_path / "encoded", tmp_path / "out", 10**6)
    assert refusal.value.reason == "oversized"


def test_infinity_made_by_the_sum_is_left_for_the_check_of_numbers(tmp_path: Path) -> None:
    base = {"w": np.full(LEAST, 3e38, np.float32)}
    update = encoded({"w": np.full(LEAST, 9e37, np.float32)}, {"w": np.zeros(LEAST, np.float32)}, "int8")
    found = through(tmp_path, base, base, "int8", update)
    assert np.isinf(found["w"]).all()
    with pytest.raises(Refused):
        weights.check_numbers(tmp_path / "out")


def inflate(data: bytes, size: int) -> bytes:
    return b"".join(inflated(iter([data]), size))


FRAME = zstandard.ZstdCompressor().compress(b"hello" * 100)
PARAMETERS = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
WIDE = zstandard.ZstdCompressor(compression_params=PARAMETERS).compressobj()
DICTIONARY = zstandard.ZstdCompressionDict(bytes(range(256)) * 8, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def test_a_frame_gives_back_what_went_in() -> None:
    assert inflate(FRAME, 500) == b"hello" * 100


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (FRAME, 499),
        (FRAME, 501),
        (FRAME[:-1], 500),
        (FRAME + b"\0", 500),
        (FRAME + zstandard.ZstdCompressor().compress(b""), 500),
        (FRAME + b"\x50\x2a\x4d\x18\x04\0\0\0" + bytes(300), 500),
        (b"\x50\x2a\x4d\x18\x04\0\0\0abcd", 4),
        (b"", 0),
        (b"hello", 5),
        (WIDE.compress(np.random.default_rng(0).bytes(2**20)) + WIDE.flush(), 2**20),
        (zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(bytes(range(256))), 256),
        (zstandard.ZstdCompressor().compress(bytes(2**28)), 2**20),
    ],
    ids=["longer", "shorter", "cut", "a byte more", "a frame more", "a skippable frame more", "skippable", "nothing",
         "no frame", "wide window", "dictionary", "bomb"],
)  # fmt: skip
def test_a_frame_that_is_not_what_was_said_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(Refused) as refusal:
        inflate(data, size)
    assert refusal.value.reason == "weights"


def test_segments_are_whole_blocks_and_the_window_is_what_every_decoder_has() -> None:
    assert (SEGMENT % 1024, MAX_WINDOW) == (0, 8 * 2**20)
