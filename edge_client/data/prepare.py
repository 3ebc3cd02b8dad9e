"""CSV -> features of one client, a pure function of the bytes and the options. Reads the CSV; writes nothing.

Types, medians and categories come from the training rows alone, so that nothing of the test rows leaks into them.
Nothing is scaled here: scaling is federated, and comes with the model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_client.data import columns as encoding
from edge_client.data import labels, table
from edge_client.data.arrays import sha256
from edge_client.data.document import Column, Document, Dropped, Label, Origin
from edge_client.data.features import Features, Labels
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
    _check(options)
    notes: list[str] = []
    rows = table.read(csv, options.delimiter)
    origin = _origin(csv, options)
    try:
        label, y = _labels(rows, options, notes)
        train, test = stratified(y, options.test, options.seed)
        document = options.schema or _fit(rows, train, label, options, notes)
        table.require((column.name for column in document.columns), rows, "the federation's schema")
        x = encoding.encode(rows, document.columns, notes.append)
        features = Features(x[train], y[train], x[test], y[test], document.schema)
    except DataError as error:
        raise DataError(f"{csv}: {error}") from None
    document = msgspec.structs.replace(document, origin=origin)
    return Prepared(features, document, (*notes, *_unused(rows, label, document)))


def _check(options: Options) -> None:
    if options.schema is None and options.label is None:
        raise DataError("--label COLUMN is needed: which column holds what is to be learnt")
    if options.schema is not None and (options.drop or options.log):
        raise DataError("--drop and --log do not go with --schema: the federation's schema decides both")
    if options.schema is not None and not (options.schema.columns and options.schema.label):
        raise DataError("--schema: describes arrays without columns; take one that `floe prepare` made from a CSV")


def _labels(rows: table.Table, options: Options, notes: list[str]) -> tuple[Label, Labels]:
    given = options.schema.label if options.schema else None
    column = options.label or (given.column if given else "")
    table.require([column], rows, "label")
    return labels.number(column, rows[column], options.normal, given, notes)


def _origin(csv: Path, options: Options) -> Origin:
    return {"csv": csv.name, "sha256": sha256(csv), "test": options.test, "seed": options.seed}


def _fit(rows: table.Table, train: Rows, label: Label, options: Options, notes: list[str]) -> Document:
    table.require([*options.drop, *options.log], rows, "--drop, --log")
    left_out = {label.column, *options.drop}
    chosen = {name: cells[train] for name, cells in rows.items() if name not in left_out}
    fitted, dropped = encoding.fit(chosen, set(options.log), notes.append)
    dropped = [*(Dropped(name, "--drop") for name in options.drop), *dropped]
    names = tuple(name for column in fitted for name in column.features())
    _check_names(names, fitted)
    schema = Schema((len(names),), len(label.classes) or 2, names)
    return Document(schema=schema, label=label, columns=tuple(fitted), dropped=tuple(dropped))


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
