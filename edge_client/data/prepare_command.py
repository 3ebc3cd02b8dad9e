"""`floe prepare`: CSVs to feature folders. Writes them and prints what is in them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import numpy as np

from edge_client.data import document, folder
from edge_client.data.features import Labels
from edge_client.data.prepare import Options, Prepared, describe, prepare_all
from floe.errors import DataError
from floe.messages import Name

ENDING = re.compile(r"\.csv(\.gz)?\Z")
STEM = re.compile(r"(\.csv(\.gz)?|\.npz)\Z")
MAX_LINES = 20  # of a kind, in what `floe prepare` prints


@click.command()
@click.argument("csvs", metavar="CSV...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--client", help="name of the client: [a-z0-9_-]{1,64}  [default: the file's]")
@click.option("--label", metavar="COL", help="column to learn (with --schema: default the schema's)")
@click.option("--normal", metavar="V", help="this label is normal (0), all others are anomalies (1)")
@click.option("--out", type=click.Path(path_type=Path), default=Path("features"), show_default=True)
@click.option("--test", type=float, default=0.2, show_default=True, help="share of every class that is test data")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="seed of the split")
@click.option("--schema", type=click.Path(path_type=Path), help="schema.json of the federation: followed exactly")
@click.option("--drop", metavar="COL", multiple=True, help="leave this column out (again for more)")
@click.option("--log", metavar="COL", multiple=True, help="signed logarithm of this column (again for more)")
@click.option("--delimiter", metavar="C", help="what stands between fields (default: seen from the header)")
@click.option("--force", is_flag=True, help="replace OUT/CLIENT although it was made from something else")
def prepare(
    csvs: tuple[Path, ...],
    client: str | None,
    label: str | None,
    normal: str | None,
    out: Path,
    test: float,
    seed: int,
    schema: Path | None,
    drop: tuple[str, ...],
    log: tuple[str, ...],
    delimiter: str | None,
    force: bool,
) -> None:
    """CSV (plain or .gz) to features: OUT/CLIENT/{train,test}_{x,y}.npy and a readable schema.json.

    Several CSVs, or a folder of them, are a client each, called after the file, and all have one schema: it takes the
    columns and categories of any. With --schema no file's columns count for another's.

    An .npz becomes a folder as it is: with X and y, train_x ... test_y, or benign_train, benign_test, attack.
    """
    clients = _clients(csvs, client)
    federation = document.read(schema) if schema else None
    options = Options(label, normal, test, seed, drop, log, delimiter, federation)
    prepared = _prepared(list(clients.values()), options)
    if not force:
        for name, csv in clients.items():
            folder.check_replaceable(out / name, prepared[csv].document)
    for name, csv in clients.items():
        folder.write(out / name, prepared[csv].features, prepared[csv].document)
        _report(prepared[csv], out / name)


def _prepared(files: list[Path], options: Options) -> dict[Path, Prepared]:
    arrays = [file for file in files if file.suffix == ".npz"]
    if not arrays:
        return prepare_all(files, options)
    if len(files) > 1:
        raise DataError(
            f"{arrays[0]}: an .npz names no columns that others could share: prepare each by itself; a folder of them "
            "becomes devices with `floe data split --partition natural`"
        )
    return {arrays[0]: describe(arrays[0], options)}


def _clients(csvs: tuple[Path, ...], client: str | None) -> dict[str, Path]:
    """The file of each client, by its name. Raises `DataError` naming the file whose name no client can have."""
    files = [file for csv in csvs for file in _files(csv)]
    if client is not None and len(files) > 1:
        raise DataError(f"--client {client}: {len(files)} files are a client each, called after the file; leave it out")
    names = [client if client is not None else STEM.sub("", file.name) for file in files]
    for name, file in zip(names, files, strict=True):
        _check_name(name, file, given=client is not None)
    for name, file in zip(names, files, strict=True):
        if names.count(name) > 1:
            raise DataError(f"{file}: another file is client {name}, too; rename one")
    return dict(zip(names, files, strict=True))


def _files(csv: Path) -> list[Path]:
    if not csv.is_dir():
        return [csv]
    found = sorted(path for path in csv.iterdir() if ENDING.search(path.name))
    if not found:
        raise DataError(f"{csv}: a folder without a .csv or .csv.gz in it")
    return found


def _check_name(name: str, file: Path, *, given: bool) -> None:
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        what = f"--client {name!r}" if given else f"{file}: the client would be called {name!r}"
        way_out = "" if given else "; rename the file"
        raise DataError(f"{what}: 1 to 64 of a-z, 0-9, _ and -{way_out}") from None


def _report(prepared: Prepared, path: Path) -> None:
    _echo_some("dropped", [f"{dropped.name}: {dropped.reason}" for dropped in prepared.document.dropped])
    _echo_some("note   ", prepared.notes)
    features, columns = prepared.features, len(prepared.document.columns)
    click.echo(
        f"wrote   {path}: {f'{columns} columns, ' if columns else ''}{math.prod(features.schema.shape)} features; "
        f"train {_counts(features.train_y)}; test {_counts(features.test_y)}"
    )


def _echo_some(kind: str, lines: Sequence[str]) -> None:
    for line in lines[:MAX_LINES]:
        click.echo(f"{kind} {line}")
    if len(lines) > MAX_LINES:
        click.echo(f"{kind} and {len(lines) - MAX_LINES} more")


def _counts(labels: Labels) -> str:
    classes, counts = np.unique(labels, return_counts=True)
    return ", ".join(f"{label}: {count}" for label, count in zip(classes, counts, strict=True))
