"""Arrays from .npy and .npz files that nobody vouches for, as float32 and int64. Reads files; nothing is unpickled.

The header is read and judged before anything is allocated: an .npz of a few bytes can claim terabytes.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edge_client.data.features import Array, Features, Labels
from floe.errors import DataError, FloeError
from floe.schema import Schema

MAX_BYTES = 4 * 2**30
MAX_CLASSES = 1_000_000
PLAIN_KINDS = "biuf"  # bool, int, uint, float
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Raw = npt.NDArray[Any]


def read_npy(path: Path, max_bytes: int = MAX_BYTES) -> Raw:
    """One .npy file. Raises `DataError`: unreadable, not numbers, larger than `max_bytes`, or cut off."""
    with reading(str(path)), path.open("rb") as file:
        return _array(file, path.stat().st_size, str(path), max_bytes)


def npz_names(path: Path) -> set[str]:
    """The arrays of an .npz, by name. Raises `DataError`."""
    with reading(str(path)), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


def read_npz(path: Path, name: str, max_bytes: int = MAX_BYTES) -> Raw:
    """One array of an .npz. Raises `DataError` as `read_npy` does."""
    place = f"{path}: {name}"
    with reading(place), zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as file:
            return _array(file, member.file_size, place, max_bytes)


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal: which data it was, whatever its name. Raises `DataError`."""
    with reading(str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes a `DataError` that names the place."""
    try:
        yield
    except FloeError:
        raise
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{place}: does not fit into this machine's memory") from None
    except Exception as error:  # of numpy, zipfile and what they use: from TokenError to LZMAError
        raise DataError(f"{place}: damaged or of another kind: {error}") from None


def _array(file: IO[bytes], size: int, place: str, max_bytes: int) -> Raw:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise DataError(f"{place}: .npy version {version}: only plain arrays of numbers are read")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise DataError(f"{place}: holds pickled Python objects, which are never loaded; save an array of numbers")
    if dtype.kind not in PLAIN_KINDS:
        raise DataError(f"{place}: has dtype {dtype}; only numbers are read (bool, int, float)")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > max_bytes or any(length < 0 for length in shape):
        raise DataError(f"{place}: claims shape {shape} of {dtype}: {claimed} bytes, at most {max_bytes} are read")
    if claimed != size - file.tell():
        raise DataError(f"{place}: {size - file.tell()} bytes of data, shape {shape} of {dtype} needs {claimed}")
    data = file.read(claimed)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def to_x(array: Raw, place: str) -> Array:
    """Examples as float32.

    uint8 arrays (N,H,W), (N,C,H,W) or (N,H,W,C) with 1 or 3 channels are images: (N,C,H,W), scaled to 0..1.
    All others keep shape (2 to 5 axes) and values. Raises `DataError` for what float32 cannot hold.
    """
    if not 2 <= array.ndim <= 5 or 0 in array.shape[1:]:
        raise DataError(f"{place}: shape {array.shape}; expected (rows, features) or (rows, channels, height, width)")
    if array.dtype == np.uint8 and array.ndim in (3, 4):
        return _images(array)
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.itemsize > 4 and bool((np.isinf(x) & np.isfinite(array)).any()):
        raise DataError(f"{place}: has values beyond float32 (3.4e38); take their logarithm first")
    return x


def _images(array: Raw) -> Array:
    if array.ndim == 3:
        array = array[:, np.newaxis]
    elif array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array, dtype=np.float32) / np.float32(255)


def to_y(array: Raw, place: str) -> Labels:
    """Labels as int64 of shape (rows,), from whole numbers of any dtype, (rows,) or (rows, 1). Raises `DataError`."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{place}: labels of shape {array.shape}; expected one whole number for each row")
    bad = ~np.isfinite(array) | (array != np.floor(array)) | (array < 0) | (array >= MAX_CLASSES)
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{place}: label {array[first]} in row {first}; labels are whole numbers from 0: number the classes so"
        )
    return array.astype(np.int64)


def build(train_x: Array, train_y: Labels, test_x: Array, test_y: Labels, names: tuple[str, ...] = ()) -> Features:
    """`Features` whose schema follows from the arrays: classes = largest label + 1, at least 2."""
    largest = max(int(y.max(initial=1)) for y in (train_y, test_y))
    return Features(train_x, train_y, test_x, test_y, Schema(train_x.shape[1:], largest + 1, names))
