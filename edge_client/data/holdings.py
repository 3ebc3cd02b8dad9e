"""Who holds what: how many rows of each class every device has, and a table of it. Reads feature folders."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_client.data import folder
from edge_client.data.arrays import read_npy, to_y
from edge_client.data.features import Labels
from edge_client.data.partition import apportion
from edge_client.data.words import shorten
from floe.errors import DataError

MAX_LINES = 40
WIDE = 110
BAR = 40  # characters, for the device that has most rows; half of it where a terminal is narrower than WIDE
MAX_COUNTS = 12
COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
MARKS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Holding:
    """Rows by class of one device, for training and for testing."""

    device: str
    train: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def classes(self) -> int:
        """How many classes it has training rows of."""
        return sum(count > 0 for count in self.train)


def of(device: str, train: Labels, test: Labels) -> Holding:
    """Counted from labels."""
    return Holding(device, tuple(np.bincount(train).tolist()), tuple(np.bincount(test).tolist()))


def read(root: Path) -> list[Holding]:
    """Of each feature folder in `root`, device-2 before device-10. Raises `DataError` naming the file."""
    paths = sorted((path.parent for path in root.glob("*/train_y.npy")), key=_order)
    if not paths:
        raise DataError(f"{root}: holds no feature folders; `floe data split` and `floe prepare` write them")
    return [of(shorten(path.name), *(_labels(path, part) for part in ("train", "test"))) for path in paths]


def _labels(path: Path, part: str) -> Labels:
    file = path / f"{part}_y.npy"
    labels, described = to_y(read_npy(file), str(file)), folder.description(path)
    if described and len(labels) and labels.max() >= described.schema.classes:
        raise DataError(
            f"{file}: label {labels.max()}; by schema.json they go from 0 to {described.schema.classes - 1}"
        )
    return labels


def _order(path: Path) -> tuple[str, int, str]:
    stem = path.name.rstrip("0123456789")
    return stem, int(path.name[len(stem) :] or 0), path.name


def show(console: Console, found: Sequence[Holding]) -> None:
    """A line for each device, as far as `MAX_LINES` go, and one for all: to be read without colours, too."""
    bar = BAR if console.width >= WIDE else BAR // 2
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("device", overflow="fold")
    table.add_column("train", justify="right", no_wrap=True)
    table.add_column("test", justify="right", no_wrap=True)
    table.add_column("train, by class", no_wrap=True, min_width=bar)
    table.add_column("class:rows")
    largest = max(sum(one.train) for one in found)
    for one in found[:MAX_LINES]:
        sizes = (str(sum(one.train)), str(sum(one.test)))
        table.add_row(one.device, *sizes, _bar(one, bar / largest), Text(counts(one.train)))
    console.print(table)
    if len(found) > MAX_LINES:
        console.print(f"and {len(found) - MAX_LINES} more devices", highlight=False)
    console.print(summary(found), highlight=False)


def counts(rows: Sequence[int]) -> str:
    """0:12 3:40; of many classes the largest."""
    there = [(label, count) for label, count in enumerate(rows) if count]
    most = sorted(sorted(there, key=lambda pair: -pair[1])[:MAX_COUNTS])
    more = f" and {len(there) - MAX_COUNTS} more" if len(there) > MAX_COUNTS else ""
    return " ".join(f"{label}:{count}" for label, count in most) + more


def summary(found: Sequence[Holding]) -> str:
    """All devices together: rows, and how far apart they are."""
    train, classes = [sum(one.train) for one in found], [one.classes for one in found]
    return (
        f"{len(found)} device{'s' * (len(found) > 1)}, {sum(train)} training rows ({min(train)} to {max(train)}, "
        f"median {statistics.median(train):g}) and {sum(sum(one.test) for one in found)} test rows; "
        f"classes each: {min(classes)} to {max(classes)}, median {statistics.median(classes):g}"
    )


def _bar(one: Holding, scale: float) -> Text:
    """As long as the device has rows, at least one mark; in it the classes' shares.

    A class's mark is its number, from 10 on a letter, from 36 on a +.
    """
    length = max(round(scale * sum(one.train)), 1)
    text = Text()
    for label, width in enumerate(apportion(length, np.array(one.train, dtype=np.float64)).tolist()):
        text.append((MARKS[label] if label < len(MARKS) else "+") * width, COLOURS[label % len(COLOURS)])
    return text
