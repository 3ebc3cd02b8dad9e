"""Columns of text -> what each becomes (`fit`, on training rows only) -> numbers (`encode`). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from edge_client.data.document import MISSING, OTHER, Column, Dropped
from edge_client.data.table import Cells, Table, missing
from edge_client.data.words import quote, shorten
from floe.errors import DataError

MAX_CATEGORIES = 32
MAX_CATEGORY_LENGTH = 100
HUGE_RANGE = 1e4

Numbers = npt.NDArray[np.float64]
Note = Callable[[str], None]


def fit(trains: Sequence[Table], logs: Collection[str], note: Note) -> tuple[list[Column], list[Dropped]]:
    """What each column of the training rows becomes, in the order of the files, and which are dropped and why.

    The tables, one for each file, have the same columns and are taken together, as if they were one.
    numeric if every value that is there is a number, else categorical: the `MAX_CATEGORIES` most frequent values
    (ties by name). Dropped: empty, constant, or in every file an identifier: all different text, whole numbers that
    only rise or only fall. Raises `DataError` for a `logs` column that is not numeric.
    """
    columns: list[Column] = []
    dropped: list[Dropped] = []
    for name in trains[0]:
        cells = np.concatenate([train[name] for train in trains])
        pieces = [train[name][~missing(train[name])] for train in trains]
        present = np.concatenate(pieces)
        numbers = to_numbers(present)
        numeric, gaps = not np.isnan(numbers).any(), len(present) < len(cells)
        ends = np.cumsum([len(piece) for piece in pieces])[:-1]
        reason = _constant(present, gaps) or _identifier(pieces, np.split(numbers, ends) if numeric else None)
        if name in logs and (reason or not numeric):
            raise DataError(f"--log {name}: {reason or 'not a column of numbers'}")
        if reason:
            dropped.append(Dropped(name, reason))
        elif numeric:
            columns.append(_numeric(name, numbers, name in logs, gaps, note))
        else:
            columns.append(_categorical(name, present, gaps, note))
    return columns, dropped


def encode(rows: Table, columns: Collection[Column], note: Note) -> npt.NDArray[np.float32]:
    """float32 of shape (rows, features), columns in the order given, each as `Column` says.

    A value that is not a number counts as missing, an unknown category as `other`; both are noted.
    Raises `DataError` for a number that is not finite as float32, and for a column of numbers that has only text.
    """
    blocks = [
        _encode_numeric(rows[column.name], column, note)
        if column.kind == "numeric"
        else _encode_categorical(rows[column.name], column, note)
        for column in columns
    ]
    return np.column_stack([block.astype(np.float32) for block in blocks])


def to_numbers(cells: Cells) -> Numbers:
    """float64; NaN where the text is missing or not a number."""
    import pandas as pd

    return np.asarray(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)


def _constant(present: Cells, gaps: bool) -> str:
    different = len(set(present.tolist()))
    if different == 0:
        return "empty"
    return f"constant: always {shorten(present[0])}" if different == 1 and not gaps else ""


def _identifier(pieces: Sequence[Cells], numbers: Sequence[Numbers] | None) -> str:
    """Why a column identifies the rows in each of the files that have it; empty if it does not in one."""
    there = [piece for piece in pieces if len(piece)]
    if any(len(piece) < 3 or len(set(piece.tolist())) < len(piece) for piece in there):
        return ""
    if numbers is None:
        return "identifier: different in every row"
    if all(_whole(values) and _one_way(values) for values in numbers):
        return "identifier: a whole number that only rises or only falls from row to row"
    return ""


def _one_way(numbers: Numbers) -> bool:
    before, after = numbers[:-1], numbers[1:]
    return bool(np.all(after > before) or np.all(after < before))


def _whole(numbers: Numbers) -> bool:
    return bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())


def _median(numbers: Numbers) -> float:
    """Halved first: the mean of the middle two overflows near 1.8e308."""
    return 2 * float(np.median(numbers / 2))


def _numeric(name: str, numbers: Numbers, log: bool, gaps: bool, note: Note) -> Column:
    finite = numbers[np.isfinite(numbers)]
    if len(finite) == 0:
        raise DataError(f"column {name}: has no finite number; --drop {name}")
    size = np.abs(finite[finite != 0])
    if not log and len(size) and size.max() / HUGE_RANGE > _median(size):
        note(f"{name}: largest value {size.max():.3g}, median {_median(size):.3g}; consider --log {name}")
    if len(finite) == len(np.unique(finite)) and _whole(finite):
        note(f"{name}: a whole number, different in every row; if it is an identifier: --drop {name}")
    return Column(name=name, kind="numeric", median=_median(finite), log=log, missing=gaps)


def _categorical(name: str, present: Cells, gaps: bool, note: Note) -> Column:
    counts = Counter(present.tolist())
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    usable = [value for value in ranked if value not in (MISSING, OTHER) and len(value) <= MAX_CATEGORY_LENGTH]
    if len(ranked) > MAX_CATEGORIES:
        note(f"{name}: {len(ranked)} categories, the {MAX_CATEGORIES} most frequent kept, the rest is 'other'")
    kept = tuple(sorted(usable[:MAX_CATEGORIES]))
    return Column(name=name, kind="categorical", categories=kept, missing=gaps or MISSING in counts)


def _encode_numeric(cells: Cells, column: Column, note: Note) -> Numbers:
    numbers = to_numbers(cells)
    gap = np.isnan(numbers)
    _tell_words(cells, gap & ~missing(cells), column, note)
    if gap.any() and not column.missing:
        note(f"{column.name}: {int(gap.sum())} missing values became the median; training rows had none missing")
    filled = np.where(gap, column.median, numbers)
    result = np.sign(filled) * np.log1p(np.abs(filled)) if column.log else filled
    bad = ~np.isfinite(result) | (np.abs(result) > np.finfo(np.float32).max)
    if bad.any():
        row = int(np.argmax(bad))
        way_out = "correct the row" if np.isinf(filled[row]) else f"--log {column.name}"
        raise DataError(
            f"column {column.name}, row {row + 1}: {shorten(cells[row])} is too large for float32; {way_out}"
        )
    return np.column_stack([result, gap]) if column.missing else result[:, np.newaxis]


def _tell_words(cells: Cells, words: npt.NDArray[np.bool_], column: Column, note: Note) -> None:
    if not words.any():
        return
    first, count = quote(cells[int(np.argmax(words))]), int(words.sum())
    if count == int((~missing(cells)).sum()):
        raise DataError(
            f"column {column.name}: the federation's schema says numbers, and none of its {count} values is one "
            f"({first}); is it another file, or are the columns in another order?"
        )
    note(f"{column.name}: {count} values are not numbers ({first}), taken as missing")


def _encode_categorical(cells: Cells, column: Column, note: Note) -> Numbers:
    absent = missing(cells)
    gap = (absent | (cells == MISSING)) & column.missing
    known = [cells == category for category in column.categories]
    other = ~np.any([*known, gap], axis=0)
    unknown = cells[other & ~absent & (cells != OTHER)]
    if len(unknown):
        note(f"{column.name}: {len(unknown)} rows in no category of the schema ({quote(unknown[0])}), now 'other'")
    blocks = [*known, other, gap] if column.missing else [*known, other]
    return np.column_stack(blocks).astype(np.float64)
