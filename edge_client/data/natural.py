"""Data that comes divided: one file for each device, as each of them recorded it. Reads files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_client.data.arrays import reading, sha256
from edge_client.data.document import Column, Document, Origin
from edge_client.data.features import Array, Features
from edge_client.data.load import load
from edge_client.data.split import Devices
from floe.errors import DataError, Refused
from floe.messages import parse_json
from floe.schema import MAX_SCHEMA_BYTES, Schema

NBAIOT = "nbaiot"


def devices(source: str) -> Devices:
    """By name, what each device of `source` has: N-BaIoT's in the folder FLOE_DATA, or a folder of .npz files.

    A device is called after its file, in lower case, what no name has replaced by _. All have the same schema.
    Raises `DataError` naming the file.
    """
    root = _nbaiot_folder() if source == NBAIOT else Path(source).expanduser()
    files = sorted(root.glob("*.npz"))
    if not files:
        raise DataError(
            f"{root}: no .npz in it, one for each device; CSVs become devices with `floe prepare`, and a folder of "
            "feature folders is divided already"
        )
    names = [device_name(path) for path in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{root}: two files for a device {twice}; rename one")
    found = {name: load(path.name, {}, root) for name, path in zip(names, files, strict=True)}
    columns = _columns(root / "columns.json") if source == NBAIOT else ()
    schema = _common(found, tuple(column.name for column in columns))
    return {
        name: (
            _as(found[name], schema, logs=bool(columns)),
            Document(schema=schema, columns=columns, origin=_origin(root, path)),
        )
        for name, path in zip(names, files, strict=True)
    }


def _origin(root: Path, path: Path) -> Origin:
    return {"data": root.name, "partition": "natural", "file": path.name, "sha256": sha256(path)}


def device_name(path: Path) -> str:
    """What the device of a file is called: at most 64 of a-z, 0-9, _ and -."""
    return re.sub(r"[^a-z0-9_-]", "_", path.stem.lower())[:64]


def signed_log(x: Array) -> Array:
    """sign(x) * log(1 + |x|), as `Column.log` says it."""
    return (np.sign(x) * np.log1p(np.abs(x.astype(np.float64)))).astype(np.float32)


def _nbaiot_folder() -> Path:
    root = os.environ.get("FLOE_DATA", "")
    if not root or not (Path(root) / NBAIOT).is_dir():
        raise DataError(
            f"data {NBAIOT!r}: FLOE_DATA is {root or 'not set'}: set it to the folder that holds {NBAIOT}, with an "
            ".npz for each device (benign_train, benign_test, attack)"
        )
    return Path(root) / NBAIOT


def _columns(path: Path) -> tuple[Column, ...]:
    """N-BaIoT's: all in signed logarithm, for some are epoch times, and some covariances reach 1e17."""
    with reading(str(path)):
        payload = path.read_bytes()
    try:
        found: Any = parse_json(payload, MAX_SCHEMA_BYTES)
        names = msgspec.convert(found.get("features"), tuple[str, ...])
    except (Refused, msgspec.ValidationError, AttributeError):
        raise DataError(f'{path}: expected {{"features": [the names of the columns]}}') from None
    return tuple(Column(name=name, kind="numeric", log=True) for name in names)


def _common(found: dict[str, Features], names: tuple[str, ...]) -> Schema:
    """The schema of all: the names that are known, as many classes as any of them has."""
    first, *others = found
    shape = found[first].schema.shape
    for name in others:
        if found[name].schema.shape != shape:
            raise DataError(
                f"{name} has examples of shape {found[name].schema.shape}, {first} of {shape}: no federation"
            )
    return Schema(shape, max(features.schema.classes for features in found.values()), names)


def _as(features: Features, schema: Schema, *, logs: bool) -> Features:
    x = [signed_log(part) if logs else part for part in (features.train_x, features.test_x)]
    return Features(x[0], features.train_y, x[1], features.test_y, schema)
