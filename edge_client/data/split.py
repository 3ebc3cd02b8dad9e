"""One data set over many devices: features -> features of each client. Writes feature folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_client.data import by_column, folder
from edge_client.data.document import Document, Origin
from edge_client.data.features import Features
from edge_client.data.partition import Rows, follow, partition, sample, with_normal_rows
from floe.errors import DataError
from floe.partitions import ALPHA, check


@dataclass(frozen=True)
class Share:
    """What one device gets; `holds`: with --by, the values that are its own."""

    features: Features
    holds: str = ""


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
    features: Features, described: Document, clients: int, by: str, seed: int, rows: int | None = None
) -> list[Share]:
    """Each value of a column to one client, with all its train and test rows (`by_column`). Raises `DataError`."""
    if rows is not None:
        features = _thin(features, rows, seed)
    found = by_column.values(features, described.columns, by)
    trains, tests = by_column.parts(found, clients, seed)
    pairs = zip(trains, tests, strict=True)
    return [Share(_taken(features, own, test), by_column.held(found, own)) for own, test in pairs]


def shares(
    features: Features, described: Document, clients: int, how: str, alpha: float | None, by: str | None, seed: int,
    rows: int | None,
) -> list[Share]:  # fmt: skip
    """What each device gets, as a user asks for it. Raises `DataError`."""
    check(how, alpha, by)
    if by:
        return split_by(features, described, clients, by, seed, rows)
    return [Share(part) for part in split(features, clients, how, ALPHA if alpha is None else alpha, seed, rows)]


def _taken(whole: Features, train: Rows, test: Rows) -> Features:
    return Features(whole.train_x[train], whole.train_y[train], whole.test_x[test], whole.test_y[test], whole.schema)


def _thin(features: Features, rows: int, seed: int) -> Features:
    if rows < 1:
        raise DataError(f"--rows {rows}: at least 1")
    train = sample(features.train_y, rows, seed)
    share = len(train) / len(features.train_y)
    test = sample(features.test_y, max(1, round(share * len(features.test_y))), seed)
    return _taken(features, train, test)


def numbered(parts: Sequence[Share], described: Document, origin: Origin) -> dict[str, tuple[Features, Document]]:
    """device-1 ... device-N, each described as the whole was and by where it comes from."""
    named = {f"device-{number}": part for number, part in enumerate(parts, 1)}
    return {
        name: (
            part.features,
            msgspec.structs.replace(
                described,
                schema=part.features.schema,
                origin={**origin, "device": name} | ({"holds": part.holds} if part.holds else {}),
            ),
        )
        for name, part in named.items()
    }


def write(devices: Mapping[str, tuple[Features, Document]], out: Path, *, force: bool) -> None:
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
