"""Weights: our reader and writer against the safetensors package, in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from floe import weights
from floe.errors import Refused, StoreError
from floe.weights import CODES

tensor_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)
arrays = hnp.arrays(
    st.sampled_from([np.dtype(t) for t in ("<f2", "<f4", "<f8", "<i8")]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
files = st.dictionaries(tensor_names, arrays, max_size=4)
metadata = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text("xyz{}\"'é", max_size=5), max_size=2)


def same(one: dict[str, npt.NDArray[Any]], other: dict[str, npt.NDArray[Any]]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape)
        assert array.tobytes() == other[name].tobytes()


@settings(max_examples=50)
@given(files, metadata)
def test_what_we_write_we_read_and_the_package_reads(
    tmp_path_factory: pytest.TempPathFactory, given: dict[str, npt.NDArray[Any]], meta: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("w") / "ours"
    weights.write(path, given, meta)
    same(weights.read(path), given)
    assert dict(weights.read_layout_of(path).metadata) == meta
    same(load_file(path), given)
    with safe_open(path, "numpy") as opened:
        assert (opened.metadata() or {}) == meta


@settings(max_examples=50)
@given(files, metadata)
def test_what_the_package_writes_we_read(
    tmp_path_factory: pytest.TempPathFactory, given: dict[str, npt.NDArray[Any]], meta: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("w") / "theirs"
    save_file(given, path, meta or None)
    same(weights.read(path), given)
    assert dict(weights.read_layout_of(path).metadata) == meta


def test_equal_arrays_give_equal_bytes_whatever_their_order_and_layout(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype="<f4").reshape(2, 3), np.ones(2, "<i8")
    weights.write(tmp_path / "one", {"a": a, "b": b})
    weights.write(tmp_path / "other", {"b": b, "a": np.asfortranarray(a).astype(">f4")})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_pieces_of_a_tensor_are_its_elements(tmp_path: Path) -> None:
    path = tmp_path / "w"
    weights.write(path, {"a": np.zeros(3, "<f4"), "b": np.arange(10, dtype="<f8").reshape(2, 5)})
    tensor = weights.read_layout_of(path).tensors[1]
    pieces = [weights.read_piece(path, tensor, at, 4).tolist() for at in (0, 4, 8)]
    assert pieces == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_place_of_a_number_that_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "w"
    weights.write(path, {"a": np.zeros(3, "<f4"), "b": np.array([0, 0, bad, 0], "<f8")})
    with pytest.raises(Refused, match=f"weights: tensor 'b' has {bad} at 2"):
        weights.check_numbers(path)


def test_a_number_that_is_not_finite_is_found_in_a_later_piece(tmp_path: Path) -> None:
    many = np.zeros(weights.PIECE + 5, "<f2")
    many[weights.PIECE + 2] = np.nan
    weights.write(tmp_path / "w", {"a": many})
    with pytest.raises(Refused, match=f"at {weights.PIECE + 2}"):
        weights.check_numbers(tmp_path / "w")


@pytest.mark.parametrize(
    ("dtype", "largest", "beyond"),
    [("<f8", 1e100, np.nextafter(1e100, np.inf)), ("<i8", 2**53, 2**53 + 1)],
)
def test_a_number_that_would_overflow_a_mean_is_named(
    tmp_path: Path, dtype: str, largest: float, beyond: float
) -> None:
    for sign in (1, -1):
        weights.write(tmp_path / "w", {"a": np.array([0, sign * largest], dtype)})
        assert weights.check_numbers(tmp_path / "w").tensors[0].name == "a"
        weights.write(tmp_path / "w", {"a": np.array([sign * largest, sign * beyond], dtype)})
        with pytest.raises(Refused, match=r"weights: tensor .a. has .* at 1"):
            weights.check_numbers(tmp_path / "w")


def test_the_least_integer_has_a_size_too(tmp_path: Path) -> None:
    """Its negation overflows: -(-2^63) is -2^63 in 64 bits."""
    weights.write(tmp_path / "w", {"a": np.array([-(2**63)])})
    with pytest.raises(Refused, match="at 0"):
        weights.check_numbers(tmp_path / "w")


@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_the_largest_numbers_of_the_smaller_floats_pass(tmp_path: Path, dtype: str) -> None:
    largest = np.finfo(dtype).max
    weights.write(tmp_path / "w", {"a": np.array([largest, -largest], dtype)})
    assert weights.check_numbers(tmp_path / "w").data_bytes == 2 * np.dtype(dtype).itemsize


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "complex64", "object"])
def test_a_dtype_without_a_code_is_not_written(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(TypeError, match=f"tensor 'a' is {dtype}; allowed"):
        weights.write(tmp_path / "w", {"a": np.zeros(1, dtype)})
    assert list(tmp_path.iterdir()) == []


def test_more_tensors_than_the_limit_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"t{i}": entry for i in range(weights.MAX_TENSORS + 1)}).encode()
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(Refused, match="10001 tensors, at most 10000"):
        weights.read_layout_of(tmp_path / "w")


def test_files_are_joined_by_name_with_other_metadata(tmp_path: Path) -> None:
    weights.write(tmp_path / "one", {"a": np.arange(2, dtype="<f4"), "x": np.zeros(1, "<f4")}, {"old": "1"})
    weights.write(tmp_path / "two", {"0": np.arange(3, dtype="<f8")})
    weights.join({tmp_path / "one": ["a"], tmp_path / "two": ["0"]}, tmp_path / "out", {"new": "2"})
    same(weights.read(tmp_path / "out"), {"0": np.arange(3, dtype="<f8"), "a": np.arange(2, dtype="<f4")})
    assert dict(weights.read_layout_of(tmp_path / "out").metadata) == {"new": "2"}


def test_the_first_difference_of_two_layouts_is_put_in_words() -> None:
    def layout(**given: npt.NDArray[Any]) -> weights.Layout:
        return weights.layout_of(given)

    two = layout(a=np.zeros(2, "<f4"), b=np.zeros((1, 2), "<f4"))
    assert two.difference(two) == ""
    assert layout(a=np.zeros(2, "<f4")).difference(two) == "tensor 'b' is missing"
    assert two.difference(layout(a=np.zeros(2, "<f4"))) == "tensor 'b' is not expected"
    other = layout(a=np.zeros(2, "<f4"), b=np.zeros(2, "<f4"))
    assert other.difference(two) == "tensor 'b' has shape (2,), expected (1, 2)"
    other = layout(a=np.zeros(2, "<f8"), b=np.zeros((1, 2), "<f4"))
    assert other.difference(two) == "tensor 'a' is float64, expected float32"


def test_tensors_in_another_order_than_their_names_differ(tmp_path: Path) -> None:
    text = (
        b'{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    )
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    expected = weights.layout_of({"a": np.zeros(1, "<f4"), "b": np.zeros(1, "<f4")})
    found = weights.read_layout_of(tmp_path / "w").difference(expected)
    assert found == "the tensors are not in the order of their names"


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "w"
    weights.write(path, {"a": np.zeros(1, "<f4")})
    before = path.read_bytes()
    (tmp_path / ".w.part").mkdir()
    with pytest.raises(StoreError, match="nothing was replaced"):
        weights.write(path, {"a": np.ones(1, "<f4")})
    assert path.read_bytes() == before


def test_every_dtype_has_one_code() -> None:
    assert sorted(CODES.values()) == sorted(weights.DTYPES)
