"""One data set over many devices: features -> features of each client. Writes feature folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_client.data import by_column, folder
from edge_client.data.document import Column, Document, Origin
from edge_client.data.features import Features
from edge_client.data.partition import Rows, follow, partition, sample, with_normal_rows
from floe.errors import DataError

Devices = dict[str, tuple[Features, Document]]


def split(
    features: Features, clients: int, how: str, alpha: float, seed: int, rows: int | None = None
) -> list[Features]:
    """Train and test rows of every client, disjoint and complete; the schema stays.

    `rows` first thins the data to so many training rows, and the test rows in the same ratio, classes in proportion.
    Test rows follow the training rows (`partition.follow`); of two classes every client has normal rows to learn from.
    Raises `DataError` when there are too few rows.
    """
    if rows is not None:
        features = _thin(features, rows, seed)
    parts = partition(features.train_y, clients, how, alpha, seed)
    if features.schema.classes == 2:
        parts = with_normal_rows(parts, features.train_y, seed)
    tests = follow(features.test_y, features.train_y, parts, seed)
    return [_taken(features, own, test) for own, test in zip(parts, tests, strict=True)]


def split_by(
    features: Features, columns: Sequence[Column], clients: int, by: str, seed: int, rows: int | None = None
) -> tuple[list[Features], list[str]]:
    """Each value of a column to one client, with all its train and test rows (`by_column`); and the values of each.

    Raises `DataError`.
    """
    if rows is not None:
        features = _thin(features, rows, seed)
    found = by_column.values(features, columns, by)
    trains, tests = by_column.parts(found, clients, seed)
    parts = [_taken(features, own, test) for own, test in zip(trains, tests, strict=True)]
    return parts, [by_column.held(found, own) for own in trains]


def _taken(whole: Features, train: Rows, test: Rows) -> Features:
    return Features(whole.train_x[train], whole.train_y[train], whole.test_x[test], whole.test_y[test], whole.schema)


def _thin(features: Features, rows: int, seed: int) -> Features:
    if rows < 1:
        raise DataError(f"--rows {rows}: at least 1")
    train = sample(features.train_y, rows, seed)
    share = len(train) / len(features.train_y)
    test = sample(features.test_y, max(1, round(share * len(features.test_y))), seed)
    return _taken(features, train, test)


def numbered(parts: Sequence[Features], described: Document, origin: Origin, holds: Sequence[str] = ()) -> Devices:
    """device-1 ... device-N, each described as the whole was and by where it comes from; `holds`: what is its own."""
    return {
        (name := f"device-{number + 1}"): (
            part,
            msgspec.structs.replace(
                described, origin={**origin, "device": name} | ({"holds": holds[number]} if holds else {})
            ),
        )
        for number, part in enumerate(parts)
    }


def write(devices: Devices, out: Path, *, force: bool) -> None:
    """OUT/<device> for each: a feature folder whose schema.json says where it comes from.

    Raises `DataError`, before anything is written, when the folder holds devices of another split, which a federation
    would take for its own; with `force` those of the same names are replaced.
    """
    others = sorted(path.name for path in out.glob("device-*") if path.name not in devices)
    if others and "device-1" in devices:
        raise DataError(f"{out}: holds {', '.join(others)} of another split; remove them or take another --out")
    for name, (_, description) in devices.items():
        if not force:
            folder.check_replaceable(out / name, description)
    for name, (features, description) in devices.items():
        folder.write(out / name, features, description)
