"""CSV -> features of one client, a pure function of the bytes and the options. Reads the CSV; writes nothing.

Types, medians and categories come from the training rows alone, so that nothing of the test rows leaks into them.
Nothing is scaled here: scaling is federated, and comes with the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_client.data import columns as encoding
from edge_client.data import table
from edge_client.data.document import Column, Document, Dropped, Label
from edge_client.data.features import Features, Labels
from edge_client.data.partition import Rows, stratified
from floe.errors import DataError
from floe.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

MAX_CLASSES = 1000
MAX_NAME_LENGTH = 256


@dataclass(frozen=True)
class Options:
    """What the user may choose. With `schema`, the federation's: `label` and `normal` may be left out, and what is
    dropped or logged is the schema's."""

    label: str | None = None
    normal: str | None = None
    test: float = 0.2
    seed: int = 0
    drop: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    delimiter: str | None = None
    schema: Document | None = None


@dataclass(frozen=True)
class Prepared:
    """The features, the schema.json that goes with them, and what the user should know."""

    features: Features
    document: Document
    notes: tuple[str, ...]


def prepare(csv: Path, options: Options) -> Prepared:
    """Raises `DataError` naming the file and the column: see `table.read`, `columns.fit` and `columns.encode`."""
    _check(options)
    notes: list[str] = []
    frame = table.read(csv, options.delimiter)
    try:
        label, y = _labels(frame, options, notes)
        train, test = stratified(y, options.test, options.seed)
        document = options.schema or _fit(frame, train, label, options, notes)
        table.require((column.name for column in document.columns), frame.columns, "the federation's schema")
        x = encoding.encode(frame, document.columns, notes.append)
        features = Features(x[train], y[train], x[test], y[test], document.schema)
    except DataError as error:
        raise DataError(f"{csv}: {error}") from None
    return Prepared(features, document, (*notes, *_unused(frame, label, document)))


def _check(options: Options) -> None:
    if options.schema is None and options.label is None:
        raise DataError("--label COLUMN is needed: which column holds what is to be learnt")
    if options.schema is not None and (options.drop or options.log):
        raise DataError("--drop and --log do not go with --schema: the federation's schema decides both")
    if options.schema is not None and not (options.schema.columns and options.schema.label):
        raise DataError("--schema: describes arrays without columns; take one that `floe prepare` made from a CSV")


def _labels(frame: pd.DataFrame, options: Options, notes: list[str]) -> tuple[Label, Labels]:
    given = options.schema.label if options.schema else None
    column = options.label or (given.column if given else "")
    table.require([column], frame.columns, "label")
    values = frame[column]
    if values.isna().any():
        first = int(np.argmax(values.isna().to_numpy()))
        raise DataError(
            f"label {column}: {int(values.isna().sum())} rows have none, first row {first + 1}; remove them"
        )
    label = given or _label(column, sorted(values.unique(), key=_order), options.normal)
    if given and options.normal is not None and options.normal != given.normal:
        raise DataError(f"--normal {options.normal}: the federation's schema says {given.normal}")
    return label, _numbered(values, label, notes)


def _label(column: str, found: list[str], normal: str | None) -> Label:
    if normal is not None:
        return Label(column, normal=normal)
    if len(found) < 2:
        raise DataError(f"label {column}: only one class, {found[0]!r}; nothing can be learnt from that")
    if len(found) > MAX_CLASSES:
        raise DataError(f"label {column}: {len(found)} different values, more than {MAX_CLASSES}: not a class")
    return Label(column, classes=tuple(found))


def _numbered(values: pd.Series[str], label: Label, notes: list[str]) -> Labels:
    found = sorted(values.unique(), key=_order)
    if label.normal is None:
        unknown = [value for value in found if value not in label.classes]
        if unknown:
            raise DataError(f"label {label.column}: {unknown[0]!r} is none of {', '.join(label.classes)}")
        if len(found) < 2:
            raise DataError(f"label {label.column}: only one class, {found[0]!r}; nothing can be learnt from that")
        number = {value: i for i, value in enumerate(label.classes)}
        return np.array([number[value] for value in values], dtype=np.int64)
    normal = {value for value in found if _order(value) == _order(label.normal)}
    if not normal:
        raise DataError(f"label {label.column}: no row is {label.normal!r} (normal); found {', '.join(found[:8])}")
    if len(normal) == len(found):
        notes.append(f"label {label.column}: no anomalies; ROC-AUC will have no meaning on this test set")
    return np.array([value not in normal for value in values], dtype=np.int64)


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by value ("0" and "0.0" are one), then text."""
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def _fit(
    frame: pd.DataFrame,
    train: Rows,
    label: Label,
    options: Options,
    notes: list[str],
) -> Document:
    table.require([*options.drop, *options.log], frame.columns, "--drop, --log")
    chosen = frame.drop(columns=[label.column, *options.drop])
    fitted, dropped = encoding.fit(chosen.iloc[train], options.log, notes.append)
    dropped = [*(Dropped(name, "--drop") for name in options.drop), *dropped]
    names = tuple(name for column in fitted for name in column.features())
    _check_names(names, fitted)
    schema = Schema((len(names),), len(label.classes) or 2, names)
    return Document(schema=schema, label=label, columns=tuple(fitted), dropped=tuple(dropped))


def _check_names(names: tuple[str, ...], fitted: list[Column]) -> None:
    if not names:
        raise DataError("no column is left: all are dropped, empty, constant or identifiers")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two features would be called {twice!r}; rename that column")
    long = [column.name for column in fitted if max(map(len, column.features())) > MAX_NAME_LENGTH]
    if long:
        raise DataError(f"column {long[0][:40]!r}: feature names over {MAX_NAME_LENGTH} characters; shorten the header")


def _unused(frame: pd.DataFrame, label: Label, document: Document) -> list[str]:
    used = {label.column, *(c.name for c in document.columns), *(d.name for d in document.dropped)}
    unused = [str(name) for name in frame.columns if name not in used]
    return [f"not in the federation's schema, left out: {', '.join(unused)}"] if unused else []
