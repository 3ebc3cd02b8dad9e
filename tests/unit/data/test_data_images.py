"""MNIST's and CIFAR-10's own formats, byte by byte."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.images import CIFAR_TEST, CIFAR_TRAIN, MNIST_FILES, read_idx
from edge_client.data.load import load
from floe.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, zipped: bool) -> None:
    for name in MNIST_FILES:
        rows = 6 if name.startswith("train") else 4
        array = np.full((rows, 28, 28), 51, np.uint8) if "images" in name else np.arange(rows, dtype=np.uint8)
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array))) if zipped else (folder / name).write_bytes(
            idx(array)
        )


def write_cifar(folder: Path) -> None:
    for i, name in enumerate((*CIFAR_TRAIN, CIFAR_TEST)):
        record = bytes([i]) + bytes([255] * 1024 + [51] * 1024 + [0] * 1024)
        (folder / name).write_bytes(record * 2)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_by_its_original_files(tmp_path: Path, zipped: bool) -> None:
    write_mnist(tmp_path, zipped)
    found = load(".", {}, tmp_path)
    assert (found.train_x.shape, found.test_x.shape) == ((6, 1, 28, 28), (4, 1, 28, 28))
    assert found.train_y.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.unique(found.train_x).tolist() == [np.float32(0.2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with"),
        (bytes((0, 0, 8, 1)) + bytes(12), "starts with 00000801"),
        (bytes((0, 0, 13, 3)) + bytes(12), "starts with 00000d03"),
        (bytes((0, 0, 8, 3)) + bytes(5), "ends within its header"),
        (bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 2, 2) + bytes(7), "needs 8 bytes, the file has only 7"),
        (bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 2, 2) + bytes(9), "needs 8 bytes, the file has more"),
        (bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 9), "claims shape"),
    ],
)
def test_idx_is_parsed_strictly(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "zipped.gz").write_bytes(gzip.compress(content))
    for name in ("plain", "zipped.gz"):
        with pytest.raises(DataError, match=message):
            read_idx(tmp_path / name, 3)


def test_a_cut_gzip_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(np.zeros((9, 9), np.uint8)))[:-9])
    (tmp_path / "b.gz").write_bytes(b"no gzip at all")
    for name in ("a.gz", "b.gz"):
        with pytest.raises(DataError, match=name):
            read_idx(tmp_path / name, 2)


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    (tmp_path / f"{MNIST_FILES[3]}.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: missing"):
        load(".", {}, tmp_path)


def test_cifar_by_its_binary_batches(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    found = load(".", {}, tmp_path)
    assert (found.train_x.shape, found.test_x.shape) == ((10, 3, 32, 32), (2, 3, 32, 32))
    assert found.train_y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert found.train_x[0, :, 5, 7].tolist() == [1.0, np.float32(0.2), 0.0]


def test_pickled_cifar_is_refused_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    for name in (*CIFAR_TRAIN, CIFAR_TEST):
        (tmp_path / name).with_suffix("").write_bytes(pickle.dumps({b"data": 1}))
    with pytest.raises(DataError, match=r"a pickle, which can run any code.*cifar-10-binary\.tar\.gz"):
        load(".", {}, tmp_path)


def test_a_missing_or_odd_batch_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    (tmp_path / CIFAR_TRAIN[2]).write_bytes(bytes(3072))
    with pytest.raises(DataError, match=r"data_batch_3\.bin: 3072 bytes, not a multiple of 3073"):
        load(".", {}, tmp_path)
    (tmp_path / CIFAR_TRAIN[2]).write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match=r"data_batch_3\.bin: record 0 has a label over 9"):
        load(".", {}, tmp_path)
    (tmp_path / CIFAR_TRAIN[2]).unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin missing"):
        load(".", {}, tmp_path)


def test_real_mnist_has_its_published_counts(data_folder: Path) -> None:
    found = load("mnist", {}, data_folder)
    assert (found.train_x.shape, found.test_x.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert np.bincount(found.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (found.train_x.min(), found.train_x.max()) == (0.0, 1.0)


def test_real_cifar_subset(data_folder: Path) -> None:
    found = load("cifar10_subset", {}, data_folder)
    assert (found.train_x.shape, found.test_x.shape) == ((10000, 3, 32, 32), (2000, 3, 32, 32))
    assert abs(found.train_x.mean(axis=(0, 2, 3)) - [0.4923, 0.4822, 0.4464]).max() < 0.005
