"""CSVs -> features of a client each, a pure function of the bytes and the options. Reads the CSVs; writes nothing.

Types, medians and categories come from the training rows alone, so that nothing of the test rows leaks into them.
Nothing is scaled here: scaling is federated, and comes with the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge_client.data import columns as encoding
from edge_client.data import labels, table
from edge_client.data.arrays import sha256
from edge_client.data.document import Column, Document, Dropped, Label, Origin
from edge_client.data.features import Features, Labels
from edge_client.data.load import load
from edge_client.data.partition import Rows, stratified
from edge_client.data.words import quote, some
from floe.errors import DataError
from floe.schema import Schema

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
    return prepare_all([csv], options)[csv]


def prepare_all(csvs: Sequence[Path], options: Options) -> dict[Path, Prepared]:
    """Each CSV as one client's features, all with one schema: that of the options, or one that fits them together.

    Fitting takes what all training rows have: the columns of any file (missing where another lacks it) and their
    categories. Raises as `prepare`.
    """
    _check(options)
    tables = {csv: table.read(csv, options.delimiter) for csv in csvs}
    notes: dict[Path, list[str]] = {csv: [] for csv in csvs}
    document = options.schema
    if document is None:
        tables = {csv: _widened(csv, rows, list(tables.values()), options, notes[csv]) for csv, rows in tables.items()}
        document = _fit(tables, options, notes[csvs[0]])
    return {csv: _prepared(csv, rows, options, document, notes[csv]) for csv, rows in tables.items()}


def describe(npz: Path, options: Options) -> Prepared:
    """An .npz, whose arrays are features as they are (`load`). Raises `DataError`, also for any option."""
    if options != Options():
        raise DataError(f"{npz}: arrays are taken as they are; --client, --out and --force are all that goes with them")
    features = load(str(npz), {}, Path.cwd())
    origin: Origin = {"npz": npz.name, "sha256": sha256(npz)}
    return Prepared(features, Document(schema=features.schema, origin=origin), ())


def _widened(
    csv: Path, rows: table.Table, every: Sequence[table.Table], options: Options, notes: list[str]
) -> table.Table:
    """With all columns that any of the files has, in one order; the label it must have itself."""
    with _named(csv):
        column = options.label or ""
        table.require([column], rows, "label")
        labels.check_complete(column, rows[column])
    lacking = np.full(len(next(iter(rows.values()))), None, dtype=object)
    wide = {name: rows.get(name, lacking) for one in every for name in one}
    if absent := [name for name in wide if name not in rows]:
        notes.append(f"no column {some(absent)}, which another file has: missing in every row")
    return wide


def _prepared(csv: Path, rows: table.Table, options: Options, document: Document, notes: list[str]) -> Prepared:
    with _named(csv):
        label, train, test, y = _divided(rows, options, document.label, notes)
        table.require((column.name for column in document.columns), rows, "the federation's schema")
        x = encoding.encode(rows, document.columns, notes.append)
        features = Features(x[train], y[train], x[test], y[test], document.schema)
    document = msgspec.structs.replace(document, origin=_origin(csv, options))
    return Prepared(features, document, (*notes, *_unused(rows, label, document)))


@contextmanager
def _named(*csvs: Path) -> Iterator[None]:
    """What goes wrong inside names the file, or the first of them."""
    try:
        yield
    except DataError as error:
        more = f" and {len(csvs) - 1} more" if len(csvs) > 1 else ""
        raise DataError(f"{csvs[0]}{more}: {error}") from None


def _check(options: Options) -> None:
    if options.schema is None and options.label is None:
        raise DataError("--label COLUMN is needed: which column holds what is to be learnt")
    if options.schema is not None and (options.drop or options.log):
        raise DataError("--drop and --log do not go with --schema: the federation's schema decides both")
    if options.schema is not None and not (options.schema.columns and options.schema.label):
        raise DataError("--schema: describes arrays without columns; take one that `floe prepare` made from a CSV")


def _divided(
    rows: table.Table, options: Options, given: Label | None, notes: list[str]
) -> tuple[Label, Rows, Rows, Labels]:
    """What the labels mean, the training and the test rows, and the number of each row's label."""
    column = options.label or (given.column if given else "")
    table.require([column], rows, "label")
    label, y = labels.number(column, rows[column], options.normal, given, notes)
    return label, *stratified(y, options.test, options.seed), y


def _origin(csv: Path, options: Options) -> Origin:
    return {"csv": csv.name, "sha256": sha256(csv), "test": options.test, "seed": options.seed}


def _fit(tables: Mapping[Path, table.Table], options: Options, notes: list[str]) -> Document:
    """What the training rows of all files together make of each column."""
    column = options.label or ""
    with _named(*tables):
        every = np.concatenate([rows[column] for rows in tables.values()])
        label, _ = labels.number(column, every, options.normal, None, [])
    trains = []
    for csv, rows in tables.items():
        with _named(csv):
            trains.append(_divided(rows, options, label, [])[1])
    with _named(*tables):
        fitted, dropped = _columns([*zip(tables.values(), trains, strict=True)], label, options, notes)
        names = tuple(name for one in fitted for name in one.features())
        _check_names(names, fitted)
    schema = Schema((len(names),), len(label.classes) or 2, names)
    return Document(schema=schema, label=label, columns=tuple(fitted), dropped=tuple(dropped))


def _columns(
    parts: Sequence[tuple[table.Table, Rows]], label: Label, options: Options, notes: list[str]
) -> tuple[list[Column], list[Dropped]]:
    table.require([*options.drop, *options.log], parts[0][0], "--drop, --log")
    left_out = {label.column, *options.drop}
    chosen = [{name: cells[train] for name, cells in rows.items() if name not in left_out} for rows, train in parts]
    fitted, dropped = encoding.fit(chosen, set(options.log), notes.append)
    return fitted, [*(Dropped(name, "--drop") for name in options.drop), *dropped]


def _check_names(names: tuple[str, ...], fitted: list[Column]) -> None:
    if not names:
        raise DataError("no column is left: all are dropped, empty, constant or identifiers")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"two features would be called {quote(twice)}; rename that column")
    long = [column.name for column in fitted if max(map(len, column.features())) > MAX_NAME_LENGTH]
    if long:
        raise DataError(f"column {quote(long[0])}: feature names over {MAX_NAME_LENGTH} characters; shorten the header")


def _unused(rows: table.Table, label: Label, document: Document) -> list[str]:
    used = {label.column, *(c.name for c in document.columns), *(d.name for d in document.dropped)}
    unused = [name for name in rows if name not in used]
    return [f"not in the federation's schema, left out: {some(unused)}"] if unused else []
