"""A feature folder: {train,test}_{x,y}.npy and schema.json. Writes and reads that folder."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from edge_client.data import document
from edge_client.data.arrays import build, read_npy, to_x, to_y
from edge_client.data.document import Document
from edge_client.data.features import Features
from floe.errors import DataError, StoreError

ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def write(folder: Path, features: Features, described: Document) -> None:
    """Write the five files, each replaced in one step; other files in the folder are left alone.

    The last array is removed first and put back last: a folder left half-way by a crash lacks it, and does not load.
    Raises `StoreError` when the disk refuses.
    """
    contents = {f"{name}.npy": _npy(getattr(features, name)) for name in ARRAYS}
    order = {document.FILE: described.to_json(), **contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in order.items():
            _write_synced(folder / f".{name}.new", content)
        (folder / f"{ARRAYS[-1]}.npy").unlink(missing_ok=True)
        for name in order:
            (folder / f".{name}.new").replace(folder / name)
    except OSError as error:
        raise StoreError(f"{folder}: cannot write features: {error.strerror or error}") from None


def check_replaceable(folder: Path, intended: Document) -> None:
    """Raises `DataError` when the folder holds features of which schema.json does not say just what it would say now.

    So the same source and flags may be prepared again, and no other device's features are overwritten by mistake.
    """
    files = (document.FILE, *(f"{name}.npy" for name in ARRAYS))
    if any((folder / name).exists() for name in files) and _described(folder) != intended:
        raise DataError(
            f"{folder}: holds features made from another source, or with another schema or other flags; "
            "--force replaces them"
        )


def description(folder: Path) -> Document | None:
    """What schema.json says of a feature folder; None if there is none. Raises `DataError`."""
    path = folder / document.FILE
    return document.read(path) if path.is_file() else None


def _described(folder: Path) -> Document | None:
    try:
        return document.read(folder / document.FILE)
    except DataError:
        return None


def read(folder: Path) -> Features:
    """The features of a folder. Without schema.json the features have no names and classes = largest label + 1.

    Raises `DataError` naming the missing file, or what is wrong in which.
    """
    for name in ARRAYS:
        if not (folder / f"{name}.npy").is_file():
            raise DataError(f"{folder / name}.npy: missing; a feature folder has {', '.join(ARRAYS)} (.npy)")
    x = [to_x(read_npy(folder / f"{part}_x.npy"), f"{part}_x.npy") for part in ("train", "test")]
    y = [to_y(read_npy(folder / f"{part}_y.npy"), f"{part}_y.npy") for part in ("train", "test")]
    if not (folder / document.FILE).is_file():
        return build(x[0], y[0], x[1], y[1])
    return Features(x[0], y[0], x[1], y[1], document.read(folder / document.FILE).schema)


def _npy(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
