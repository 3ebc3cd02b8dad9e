"""The label column of a CSV -> a number for each row, and what the numbers mean. Pure."""

from __future__ import annotations

import math

import numpy as np

from edge_client.data.document import MAX_TEXT, Label
from edge_client.data.features import Labels
from edge_client.data.table import Cells, missing
from edge_client.data.words import quote, some
from floe.errors import DataError

MAX_CLASSES = 1000
FEW_CLASSES = 20  # up to here, fractions and values that occur once are taken for classes


def number(
    column: str, cells: Cells, normal: str | None, given: Label | None, notes: list[str]
) -> tuple[Label, Labels]:
    """What the labels mean (`given`: as the federation says), and int64 of shape (rows,).

    Raises `DataError` naming the column: a row without a label, one class only, values that are no classes.
    """
    check_complete(column, cells)
    if given and normal is not None and normal != given.normal:
        raise DataError(f"--normal {normal}: the federation's schema says {given.normal}")
    found = sorted(dict.fromkeys(cells.tolist()), key=_order)
    label = given or _label(column, found, len(cells), normal)
    return label, _classes(cells, label, found) if label.normal is None else _anomalies(cells, label, found, notes)


def check_complete(column: str, cells: Cells) -> None:
    """Raises `DataError` for a row without a label."""
    gaps = missing(cells)
    if gaps.any():
        first = int(np.argmax(gaps))
        raise DataError(f"label {column}: {int(gaps.sum())} rows have none, first row {first + 1}; remove them")


def _label(column: str, found: list[str], rows: int, normal: str | None) -> Label:
    if normal is not None:
        return Label(column, normal=normal)
    rare = 2 * len(found) > rows
    if len(found) > MAX_CLASSES or (len(found) > FEW_CLASSES and (rare or any(map(_fraction, found)))):
        raise DataError(
            f"label {column!r} has {len(found)} different values: not classes; use --normal V (V against all others), "
            "or put classes in their place, such as low and high"
        )
    long = [value for value in found if len(value) > MAX_TEXT]
    if long:
        raise DataError(f"label {column}: {quote(long[0])} has over {MAX_TEXT} characters: not a class")
    return Label(column, classes=tuple(found))


def _classes(cells: Cells, label: Label, found: list[str]) -> Labels:
    unknown = [value for value in found if value not in label.classes]
    if unknown:
        raise DataError(f"label {label.column}: {quote(unknown[0])} is none of {some(label.classes)}")
    if len(found) < 2:
        raise DataError(f"label {label.column}: only one class, {quote(found[0])}; nothing can be learnt from that")
    place = {value: i for i, value in enumerate(label.classes)}
    return np.array([place[value] for value in cells], dtype=np.int64)


def _anomalies(cells: Cells, label: Label, found: list[str], notes: list[str]) -> Labels:
    assert label.normal is not None
    normal = {value for value in found if _order(value) == _order(label.normal)}
    if not normal:
        raise DataError(f"label {label.column}: no row is {quote(label.normal)} (normal); found {some(found)}")
    if len(normal) == len(found):
        notes.append(f"label {label.column}: no anomalies; ROC-AUC will have no meaning on this test set")
    return np.array([value not in normal for value in cells], dtype=np.int64)


def _fraction(text: str) -> bool:
    kind, value, _ = _order(text)
    return kind == 0 and not (math.isfinite(value) and value.is_integer())


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by value ("0" and "0.0" are one), then text."""
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)
