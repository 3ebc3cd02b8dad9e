"""Columns of text -> what each becomes (`fit`, on training rows only) -> numbers (`encode`). Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_client.data.document import MISSING, OTHER, Column, Dropped
from floe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 32
MAX_CATEGORY_LENGTH = 100
HUGE_RANGE = 1e4

Numbers = npt.NDArray[np.float64]
Note = Callable[[str], None]


def fit(train: pd.DataFrame, logs: Collection[str], note: Note) -> tuple[list[Column], list[Dropped]]:
    """What each column of the training rows becomes, in the order of the file, and which are dropped and why.

    numeric if every value that is there is a number, else categorical: the `MAX_CATEGORIES` most frequent values
    (ties by name). Dropped: empty, constant, all different text, whole numbers that only rise or only fall.
    Raises `DataError` for a `logs` column that is not numeric.
    """
    columns: list[Column] = []
    dropped: list[Dropped] = []
    for name in train.columns:
        values = train[name]
        reason = _reason_to_drop(values)
        if name in logs and (reason or not _is_numeric(values)):
            raise DataError(f"--log {name}: {reason or 'not a column of numbers'}")
        if reason:
            dropped.append(Dropped(name, reason))
        else:
            columns.append(_numeric(values, name in logs, note) if _is_numeric(values) else _categorical(values, note))
    return columns, dropped


def encode(frame: pd.DataFrame, columns: Collection[Column], note: Note) -> npt.NDArray[np.float32]:
    """float32 of shape (rows, features), columns in the order given, each as `Column` says.

    A value that is not a number counts as missing, an unknown category as `other`; both are noted.
    Raises `DataError` for a number that is not finite as float32.
    """
    blocks = [
        _encode_numeric(frame[column.name], column, note)
        if column.kind == "numeric"
        else _encode_categorical(frame[column.name], column, note)
        for column in columns
    ]
    return np.column_stack([block.astype(np.float32) for block in blocks])


def to_numbers(values: pd.Series[str]) -> Numbers:
    """float64; NaN where the text is missing or not a number."""
    import pandas as pd

    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _is_numeric(values: pd.Series[str]) -> bool:
    return not np.isnan(to_numbers(values.dropna())).any()


def _reason_to_drop(values: pd.Series[str]) -> str:
    present = values.dropna()
    if present.empty:
        return "empty"
    if present.nunique() == 1 and len(present) == len(values):
        return f"constant: always {present.iloc[0]}"
    if len(present) < 3 or present.nunique() < len(present):
        return ""
    if not _is_numeric(values):
        return "identifier: different in every row"
    steps = np.diff(to_numbers(present))
    if _whole(to_numbers(present)) and (np.all(steps > 0) or np.all(steps < 0)):
        return "identifier: a whole number that only rises or only falls from row to row"
    return ""


def _whole(numbers: Numbers) -> bool:
    return bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())


def _numeric(values: pd.Series[str], log: bool, note: Note) -> Column:
    numbers = to_numbers(values)
    present = numbers[np.isfinite(numbers)]
    if len(present) == 0:
        raise DataError(f"column {values.name}: has no finite number; --drop {values.name}")
    size = np.abs(present[present != 0])
    if not log and len(size) and size.max() / np.median(size) > HUGE_RANGE:
        note(
            f"{values.name}: largest value {size.max():.3g}, median {np.median(size):.3g}; consider --log {values.name}"
        )
    if len(present) == len(np.unique(present)) and _whole(present):
        note(f"{values.name}: a whole number, different in every row; if it is an identifier: --drop {values.name}")
    missing = bool(np.isnan(numbers).any())
    return Column(name=str(values.name), kind="numeric", median=float(np.median(present)), log=log, missing=missing)


def _categorical(values: pd.Series[str], note: Note) -> Column:
    counts = values.dropna().value_counts()
    ranked = sorted(counts.index, key=lambda value: (-counts[value], value))
    usable = [value for value in ranked if value not in (MISSING, OTHER) and len(value) <= MAX_CATEGORY_LENGTH]
    if len(ranked) > MAX_CATEGORIES:
        note(f"{values.name}: {len(ranked)} categories, the {MAX_CATEGORIES} most frequent kept, the rest is 'other'")
    missing = bool(values.isna().any()) or MISSING in ranked
    kept = tuple(sorted(usable[:MAX_CATEGORIES]))
    return Column(name=str(values.name), kind="categorical", categories=kept, missing=missing)


def _encode_numeric(values: pd.Series[str], column: Column, note: Note) -> Numbers:
    numbers = to_numbers(values)
    words = np.isnan(numbers) & values.notna().to_numpy()
    if words.any():
        first = values.iloc[int(np.argmax(words))]
        note(f"{column.name}: {int(words.sum())} values are not numbers ({first!r}), taken as missing")
    gap = np.isnan(numbers)
    if gap.any() and not column.missing:
        note(f"{column.name}: {int(gap.sum())} missing values became the median; training rows had none missing")
    filled = np.where(gap, column.median, numbers)
    result = np.sign(filled) * np.log1p(np.abs(filled)) if column.log else filled
    bad = ~np.isfinite(result) | (np.abs(result) > np.finfo(np.float32).max)
    if bad.any():
        row = int(np.argmax(bad))
        way_out = "correct the row" if np.isinf(filled[row]) else f"--log {column.name}"
        raise DataError(f"column {column.name}, row {row + 1}: {values.iloc[row]} is too large for float32; {way_out}")
    return np.column_stack([result, gap]) if column.missing else result[:, np.newaxis]


def _encode_categorical(values: pd.Series[str], column: Column, note: Note) -> Numbers:
    gap = (values.isna() | (values == MISSING)).to_numpy() & column.missing
    known = [(values == category).fillna(False).to_numpy(dtype=bool) for category in column.categories]
    other = ~np.any([*known, gap], axis=0)
    unknown = values[other & (values != OTHER).to_numpy(dtype=bool)].dropna()
    if len(unknown):
        note(f"{column.name}: {len(unknown)} rows in no category of the schema ({unknown.iloc[0]!r}), now 'other'")
    blocks = [*known, other, gap] if column.missing else [*known, other]
    return np.column_stack(blocks).astype(np.float64)
