"""The readers of files that a device or a stranger has made, as functions of bytes: weights, .npy, .npz."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.wire import SCHEMA
from helpers.wire import core, golden

from aggregator.intake import Expectation, check_weights
from edge_client.data.arrays import npz_names, read_npy, read_npz, to_x, to_y
from floe import messages as m
from floe import weights
from floe.decode import decode_model, decode_update
from floe.errors import DataError, Refused
from floe.files import hash_of
from floe.plan import Plan


def on_disk(read: Callable[[Path], object], suffix: str = "") -> Callable[[bytes], None]:
    """A reader of files as a function of bytes."""
    folder = tempfile.TemporaryDirectory(prefix="floe-fuzz-")
    path = Path(folder.name) / f"input{suffix}"

    def run(data: bytes, _keep: Any = folder) -> None:
        path.write_bytes(data)
        read(path)

    return run


def model(path: Path) -> None:
    """A weights file: what is taken is the package's, too, and passes as what the aggregator expects or is refused."""
    layout = weights.check_numbers(path)
    found = weights.read(path)
    assert sum(array.nbytes for array in found.values()) == layout.data_bytes
    assert all(np.isfinite(array).all() for array in found.values())
    for task in ("init", "sums", "train"):
        expected = Expectation(m.Phase("main", 1, 0, "init"), "", Plan(min_rows=1), layout, None, 10**6)
        with suppress(Refused):
            check_weights(path, core(task=task), expected)


def encoded_update(path: Path) -> None:
    """An encoded update: what is taken has the expected names, shapes and dtypes."""
    case = golden("valid/encoded")[0]
    base, out = path.with_name("base"), path.with_name("out")
    base.write_bytes(bytes.fromhex(case["base"]))
    layout = weights.read_layout_of(base)
    decode_update(path, out, base=base, layout=layout, coding="int8")
    assert weights.read_layout_of(out).difference(layout) == ""


def encoded_model(path: Path) -> None:
    """An encoded model: what is taken is a weights file within the cap."""
    out = path.with_name("out")
    sha256 = decode_model(path, out, 10**6)
    assert sha256 == hash_of(out)
    assert weights.read_layout_of(out).data_bytes <= 10**6


def encoded_seeds(coding: str) -> Callable[[], list[bytes]]:
    """The golden files of updates in a coding, or of models."""

    def seeds() -> list[bytes]:
        cases = golden("valid/encoded") + golden("invalid/encoded")
        found = [case["file"] for case in cases if (case["coding"] if case["base"] else "") == coding]
        return [bytes.fromhex(file) for file in found if len(file) < 8000]

    return seeds


def header(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The frame of a weights file: its header, whose length follows."""
    length = int.from_bytes(data[:8], "little")
    rest = data[8 + length :]
    return data[8 : 8 + length], lambda text: len(text).to_bytes(8, "little") + text + rest


def model_seeds() -> list[bytes]:
    sums = {"sums.count": np.array([9]), "sums.mean": np.zeros(2), "sums.m2": np.ones(2)}
    about = {"schema": SCHEMA.decode()}
    return [
        *(bytes.fromhex(case["file"]) for case in golden("valid/weights")),
        b"".join(weights.buffers(sums, about)),
        b"".join(weights.buffers({"w": np.zeros((2, 3), np.float32), "b": np.zeros((), np.float16)}, about)),
    ]


def npy(path: Path) -> None:
    found = read_npy(path, 10**6)
    for convert in (to_x, to_y):
        with suppress(DataError):
            convert(found, "x")


def npz(path: Path) -> None:
    for name in npz_names(path):
        read_npz(path, name, 10**6)


def npy_seeds() -> list[bytes]:
    arrays = (
        np.zeros((2, 3), np.float32),
        np.arange(4),
        np.array([{"a": 1}], dtype=object),
        np.zeros((2, 4, 4), np.uint8),
    )
    return [_saved(lambda file, a=a: np.save(file, a, allow_pickle=True)) for a in arrays]  # type: ignore[misc]


def npz_seeds() -> list[bytes]:
    def stored(file: io.BytesIO, method: int) -> None:
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("x.npy", npy_seeds()[0])
            archive.writestr("y.npy", npy_seeds()[1])

    return [_saved(lambda file, how=how: stored(file, how)) for how in (0, 8, 12, 14)]  # type: ignore[misc]


def _saved(write: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()
