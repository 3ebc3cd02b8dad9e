"""Files that nobody vouches for: nothing is unpickled, nothing is allocated on a claim, labels are whole numbers."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_client.data.arrays import build, npz_names, read_npy, read_npz, to_x, to_y
from floe.errors import DataError


def header_only(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    """An .npy that claims a shape and has no data."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@given(hnp.arrays(st.sampled_from(["<f4", ">f8", "<i8", "|u1", "|b1"]), hnp.array_shapes(max_dims=4), fill=st.just(0)))
def test_npy_and_npz_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "a.npy", array)
    np.savez_compressed(folder / "a.npz", a=array)
    for found in (read_npy(folder / "a.npy"), read_npz(folder / "a.npz", "a")):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


def test_fortran_order_is_read_right(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.asfortranarray([[1, 2, 3], [4, 5, 6]]))
    assert read_npy(tmp_path / "f.npy").tolist() == [[1, 2, 3], [4, 5, 6]]


def test_pickled_objects_are_refused_by_their_header(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", o=np.array([print], dtype=object))
    with pytest.raises(DataError, match="pickled Python objects"):
        read_npy(tmp_path / "o.npy")
    with pytest.raises(DataError, match=r"o\.npz: o: holds pickled"):
        read_npz(tmp_path / "o.npz", "o")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header_only((10**12, 10**6)), "claims shape"),
        (header_only((-1, 4)), "claims shape"),
        (header_only((4,)), "needs 16"),
        (header_only((2,)) + bytes(9), "needs 8"),
        (header_only((2,), "<U4") + bytes(32), "only numbers"),
        (header_only((2,), "<c8") + bytes(16), "only numbers"),
        (b"\x93NUMPY\x03\x00" + bytes(20), "version"),
        (b"not an array", "damaged"),
        (b"\x93NUMPY\x01\x00\x06\x00{'a':\n" + bytes(8), "damaged"),
        (b"\x93NUMPY\x01\x00\x20\x00{'descr':(1,),'shape':(),'a':[]} \n", "damaged"),
        (b"", "damaged"),
    ],
)
def test_a_bad_npy_is_a_clear_error_alone_and_in_a_zip(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=message):
        read_npy(tmp_path / "x.npy")
    with pytest.raises(DataError, match=message):
        read_npz(tmp_path / "x.npz", "x")


def test_the_cap_counts_bytes(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "z.npz", x=np.zeros(1000, np.float32))
    assert read_npz(tmp_path / "z.npz", "x", max_bytes=4000).shape == (1000,)
    with pytest.raises(DataError, match="4000 bytes, at most 3999"):
        read_npz(tmp_path / "z.npz", "x", max_bytes=3999)


def test_a_damaged_zip_is_a_clear_error(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "z.npz", x=np.arange(1000))
    content = bytearray((tmp_path / "z.npz").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "z.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"z\.npz"):
        read_npz(tmp_path / "z.npz", "x")
    with zipfile.ZipFile(tmp_path / "z.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", header_only((2,)) + bytes(8))
    content = bytearray((tmp_path / "z.npz").read_bytes())
    content[60] ^= 1
    (tmp_path / "z.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"z\.npz: x: damaged"):
        read_npz(tmp_path / "z.npz", "x")
    (tmp_path / "z.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="damaged"):
        npz_names(tmp_path / "z.npz")


def test_byte_images_get_channels_first_and_go_from_0_to_1() -> None:
    gray = to_x(np.full((2, 5, 4), 255, np.uint8), "x")
    assert (gray.shape, gray.dtype, gray.max()) == ((2, 1, 5, 4), np.float32, 1.0)
    last = np.zeros((2, 5, 4, 3), np.uint8)
    last[1, 4, 3, 2] = 51
    first = to_x(last, "x")
    assert first.shape == (2, 3, 5, 4)
    assert first[1, 2, 4, 3] == np.float32(0.2)
    assert to_x(np.zeros((2, 3, 5, 4), np.uint8), "x").shape == (2, 3, 5, 4)


def test_numbers_that_are_not_byte_images_keep_their_values() -> None:
    assert to_x(np.array([[0, 255]], np.uint8), "x").tolist() == [[0, 255]]


def test_what_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(DataError, match="logarithm"):
        to_x(np.array([[1e39]]), "x")


@pytest.mark.parametrize("shape", [(3,), (3, 0), (1, 1, 1, 1, 1, 1)])
def test_examples_need_rows_and_features(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="shape"):
        to_x(np.zeros(shape), "x")


@pytest.mark.parametrize("labels", [[0, -1], [0, 0.5], [0, np.nan], [0, np.inf], [0, 10**6]])
def test_labels_that_are_not_classes_name_the_row(labels: list[float]) -> None:
    with pytest.raises(DataError, match="in row 1"):
        to_y(np.array(labels), "y")


def test_labels_of_any_dtype_become_int64() -> None:
    for array in (np.array([0.0, 2.0]), np.array([[0], [2]], np.uint8)):
        found = to_y(array, "y")
        assert (found.tolist(), found.dtype) == ([0, 2], np.int64)
    with pytest.raises(DataError, match="one whole number for each row"):
        to_y(np.zeros((4, 10)), "y")


def test_there_are_at_least_two_classes() -> None:
    x, y = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    assert build(x, y, x, y).schema.classes == 2
    assert build(x, y, x, y + 4).schema.classes == 5
