"""Small inputs that would cost much: nesting, digits, claims of terabytes, a zip of zeros, pickles. All are refused."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fuzz.caps import capped
from helpers.wire import ANN, core

from aggregator.results import check_initial
from edge_client.data.arrays import read_npz
from floe import messages as m
from floe import seal, weights
from floe.errors import DataError, Refused
from floe.keyring import open_meta
from floe.plan import Plan
from floe.report import Report
from floe.schema import MAX_SCHEMA_BYTES, Schema
from floe.signing import DOMAIN, to_text, verify

MB = 2**20


def in_message(text: bytes) -> object:
    unsigned = b'{"floe":1,"type":"want","to":' + text + b"}"
    signature = to_text(ANN.private.sign(DOMAIN + unsigned))
    return verify(unsigned[:-1] + f',"sig":"{signature}"}}'.encode(), m.Want)


def as_version(text: bytes) -> object:
    return m.decode(b'{"floe":' + text + b"}", m.Want)


def in_report(text: bytes) -> object:
    sealer = seal.sealer(core(), bytes(32))
    meta = sealer._seal(sealer.meta_key, seal.META_INDEX, b'{"samples":' + text + b"}")
    return open_meta(sealer, msgspec.structs.replace(core(), meta=to_text(meta)), Report)


def in_schema(text: bytes) -> object:
    return Schema.from_json(f'{{"shape":[1],"classes":{text.decode("utf-8", "replace")}}}')


def in_header(text: bytes) -> object:
    return weights.read_layout_of(
        file_of(b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":' + text + b"}}", bytes(4))
    )


def file_of(header: bytes, data: bytes = b"") -> io.BytesIO:
    return io.BytesIO(struct.pack("<Q", len(header)) + header + data)


PARSERS = {"message": in_message, "version": as_version, "report": in_report, "schema": in_schema, "header": in_header}
TEXTS = {
    "lists in lists, 100,000 deep": b"[" * 50_000 + b"]" * 50_000,
    "objects in objects, 20,000 deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "lists never closed": b"[" * 100_000,
    "100,000 digits": b"9" * 100_000,
    "4,000 digits": b"9" * 4000,
    "minus 4,000 digits": b"-" + b"9" * 4000,
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "1e-400": b"1e-400",
    "an exponent of 100,000 digits": b"1e" + b"9" * 100_000,
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "a key twice": b'{"a":1,"a":1}',
    "a key twice, escaped": b'{"a":1,"\\u0061":1}',
    "half a surrogate pair": b'"\\ud800"',
    "half a surrogate pair as a key": b'{"\\udfff":1}',
    "a byte order mark": b"\xef\xbb\xbf1",
    "bytes of a surrogate": b'"\xed\xa0\x80"',
    "bytes of an overlong slash": b'"\xc0\xaf"',
    "a control character": b'"\x00"',
    "a comment": b"/**/1",
    "UTF-16": '"a"'.encode("utf-16"),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("parser", PARSERS)
def test_json_that_parsers_choke_on_is_refused_everywhere(parser: str, text: str) -> None:
    with capped(), pytest.raises(Refused) as refusal:
        PARSERS[parser](TEXTS[text])
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(("start", "middle", "end"), [(b"[", b"", b"]"), (b'{"a":', b"1", b"}")])
def test_no_depth_is_just_too_deep(parser: str, start: bytes, middle: bytes, end: bytes) -> None:
    """Not even one that the parser takes and whatever comes after it does not."""
    for depth in range(2, 1100):
        with pytest.raises(Refused):
            PARSERS[parser](start * depth + middle + end * depth)


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1.5", b"9" * 4000])
def test_a_header_of_many_small_things_is_refused_in_bounded_memory(item: bytes) -> None:
    many = b",".join([item] * ((weights.MAX_HEADER_BYTES - 20) // (len(item) + 1)))
    with capped(cpu_s=20), pytest.raises(Refused):
        weights.read_layout_of(file_of(b'{"__metadata__":{"a":[' + many + b"]}}"))


def test_schemas_with_a_million_names_are_compared_in_bounded_time() -> None:
    """A device chooses how many it has; each of the federation's was once looked for in a set of all of them anew."""
    many = Schema.from_json(
        '{"shape":[1],"classes":2,"features":[' + ",".join(['""'] * (MAX_SCHEMA_BYTES // 3 - 20)) + "]}"
    )
    ours = Schema((20_000,), 2, tuple(map(str, range(20_000))))
    with capped(cpu_s=20):
        assert "features, the federation has 20000; missing here: '0', '1'" in many.difference(ours)


def _claims(shape: list[int], size: int) -> bytes:
    return json.dumps({"a": {"dtype": "F64", "shape": shape, "data_offsets": [0, size]}}).encode()


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (_claims([2**40], 2**43), bytes(64)),
        (_claims([2**20, 2**20, 2**20], 2**63), bytes(64)),
        (_claims([2**47, 0], 0), bytes(64)),
        (_claims([2**64], 2**67), b""),
        (_claims([1], 8)[:-1] + b"," + _claims([1], 8).replace(b'"a"', b'"b"')[1:], bytes(8)),
        (_claims([1], 8)[:-1] + b"," + _claims([1], 8)[1:], bytes(8)),
    ],
    ids=["8 TB", "wraps", "empty, with data", "2^64", "overlap", "a name twice"],
)
def test_a_header_that_claims_what_is_not_there_reserves_nothing(header: bytes, data: bytes) -> None:
    with capped(memory=32 * MB), pytest.raises(Refused, match="weights"):
        weights.read_layout_of(file_of(header, data))


def test_an_empty_tensor_of_a_huge_shape_is_empty(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(file_of(_claims([2**47, 0, 2**47], 0)).getvalue())
    with capped(memory=32 * MB):
        assert weights.check_numbers(tmp_path / "w").data_bytes == 0


def _torch_file() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"w": [1.0]}))
    return file.getvalue()


class Evil:
    """Unpickled it would be noticed."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (_noticed, ("unpickled",))


def _noticed(what: str) -> object:
    raise AssertionError(what)


@pytest.mark.parametrize(
    "content", [pickle.dumps(Evil()), pickle.dumps(Evil(), 0), _torch_file()], ids=["2", "0", "torch"]
)
def test_a_weights_file_that_is_a_pickle_is_refused_and_not_unpickled(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (weights.check_numbers, weights.read):
        with pytest.raises(Refused, match="weights: header of"):
            read(path)
    with pytest.raises(DataError, match="cannot be the initial model"):
        check_initial(path, Plan())


def test_a_zip_of_zeros_that_says_it_is_small_is_not_unpacked(tmp_path: Path) -> None:
    """The directory of the archive says 152 bytes, as the array's own header does; the stream goes on for 64 MB."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (6,)})
    small = len(file.getvalue()) + 24
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", file.getvalue() + bytes(64 * MB))
        (member,) = archive.infolist()
        member.file_size = small
    assert path.stat().st_size < MB
    with capped(memory=32 * MB), pytest.raises(DataError, match="damaged"):
        read_npz(path, "x")


def test_an_array_of_objects_under_any_name_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([Evil()], dtype=object))
    with pytest.raises(DataError, match="pickled Python objects"):
        read_npz(tmp_path / "x.npz", "x")
