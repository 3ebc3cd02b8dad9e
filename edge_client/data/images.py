"""MNIST's IDX files and CIFAR-10's binary batches, parsed strictly. Reads files.

IDX as on LeCun's page: magic, big-endian dimensions, bytes. CIFAR-10 (Krizhevsky 2009), binary version: records of
one label byte and 3 x 32 x 32 bytes, red, green, blue, row by row.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from edge_client.data.arrays import MAX_BYTES, Raw, build, reading, to_x, to_y
from edge_client.data.features import Features
from floe.errors import DataError

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR_TEST = "test_batch.bin"
CIFAR_RECORD_BYTES = 1 + 3 * 32 * 32
FETCH = "`floe data fetch {} --url URL --out DIR`, then FLOE_DATA=DIR"


def is_mnist(folder: Path) -> bool:
    """Whether one of the four IDX files is there, gzipped or not."""
    return any((folder / f"{name}{end}").is_file() for name in MNIST_FILES for end in ("", ".gz"))


def mnist(folder: Path) -> Features:
    """The official train and test images: float32 (N,1,28,28) in 0..1, ten classes. Raises `DataError`."""
    arrays = [read_idx(_one_of(folder, name), 3 if "images" in name else 1) for name in MNIST_FILES]
    x = [to_x(arrays[i], MNIST_FILES[i]) for i in (0, 2)]
    y = [to_y(arrays[i], MNIST_FILES[i]) for i in (1, 3)]
    return build(x[0], y[0], x[1], y[1])


def read_idx(path: Path, axes: int) -> Raw:
    """An IDX file of unsigned bytes with so many axes, plain or .gz. Raises `DataError` unless it fits exactly."""
    with reading(str(path)), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        header = file.read(4 + 4 * axes)
        if header[:4] != bytes((0, 0, 8, axes)):
            raise DataError(f"{path}: starts with {header[:4].hex()}, an IDX file of {axes} axes with 0000080{axes}")
        if len(header) < 4 + 4 * axes:
            raise DataError(f"{path}: ends within its header")
        shape = struct.unpack(f">{axes}I", header[4:])
        size = math.prod(shape)
        if size > MAX_BYTES:
            raise DataError(f"{path}: claims shape {shape}: {size} bytes, at most {MAX_BYTES} are read")
        data = file.read(size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else f"only {len(data)}"
        raise DataError(f"{path}: shape {shape} needs {size} bytes, the file has {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def is_cifar(folder: Path) -> bool:
    """Whether one of CIFAR-10's batches is there, binary or pickled."""
    names = [*CIFAR_TRAIN, CIFAR_TEST]
    return any((folder / name).is_file() or (folder / name).with_suffix("").is_file() for name in names)


def cifar(folder: Path) -> Features:
    """The official train and test images: float32 (N,3,32,32) in 0..1, ten classes.

    Raises `DataError`, also for the pickled "python version": to read a pickle is to run the code in it.
    """
    missing = [name for name in (*CIFAR_TRAIN, CIFAR_TEST) if not (folder / name).is_file()]
    if missing and (folder / missing[0]).with_suffix("").is_file():
        raise DataError(
            f"{folder}: this is CIFAR-10's python version, a pickle, which can run any code when it is read; "
            f"take the binary version (cifar-10-binary.tar.gz): {FETCH.format('cifar10')}"
        )
    if missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} missing; the binary version has five batches and a test batch: "
            f"{FETCH.format('cifar10')}"
        )
    batches = [_batch(folder / name) for name in CIFAR_TRAIN]
    train_x, train_y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    test_x, test_y = _batch(folder / CIFAR_TEST)
    return build(to_x(train_x, "train"), to_y(train_y, "train"), to_x(test_x, "test"), to_y(test_y, "test"))


def _batch(path: Path) -> tuple[Raw, Raw]:
    with reading(str(path)):
        data = path.read_bytes()
    if not data or len(data) % CIFAR_RECORD_BYTES:
        raise DataError(f"{path}: {len(data)} bytes, not a multiple of {CIFAR_RECORD_BYTES} (label and 3x32x32)")
    records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD_BYTES)
    if records[:, 0].max() > 9:
        raise DataError(f"{path}: record {int(np.argmax(records[:, 0] > 9))} has a label over 9: not CIFAR-10")
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _one_of(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder / name}: missing, and no {name}.gz beside it: {FETCH.format('mnist')}")
