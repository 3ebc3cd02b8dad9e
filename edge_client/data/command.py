"""`floe prepare`, `floe data split`, `floe data fetch`. Writes feature folders and prints what is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from edge_client.data import document, fetch, folder, sources, split
from edge_client.data.features import Labels
from edge_client.data.load import load
from edge_client.data.partition import How
from edge_client.data.prepare import Options, Prepared
from edge_client.data.prepare import prepare as prepare_features
from floe.errors import DataError
from floe.messages import Name

MAX_LINES = 20  # of a kind, in what `floe prepare` prints


@click.command()
@click.argument("csv", type=click.Path(path_type=Path))
@click.option("--client", required=True, help="name of the client: [a-z0-9_-]{1,64}")
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
    csv: Path,
    client: str,
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
    """CSV (plain or .gz) to features: OUT/CLIENT/{train,test}_{x,y}.npy and a readable schema.json."""
    _check_name(client)
    federation = document.read(schema) if schema else None
    options = Options(label, normal, test, seed, drop, log, delimiter, federation)
    prepared = prepare_features(csv, options)
    if not force:
        folder.check_replaceable(out / client, prepared.document)
    folder.write(out / client, prepared.features, prepared.document)
    _report(prepared, out / client)


def _check_name(client: str) -> None:
    try:
        msgspec.convert(client, Name)
    except msgspec.ValidationError:
        raise DataError(f"--client {client!r}: 1 to 64 of a-z, 0-9, _ and -") from None


def _report(prepared: Prepared, path: Path) -> None:
    _echo_some("dropped", [f"{dropped.name}: {dropped.reason}" for dropped in prepared.document.dropped])
    _echo_some("note   ", prepared.notes)
    features = prepared.features
    click.echo(
        f"wrote   {path}: {len(prepared.document.columns)} columns, {len(features.schema.features)} features; "
        f"train {_counts(features.train_y)}; test {_counts(features.test_y)}"
    )


def _echo_some(kind: str, lines: Sequence[str]) -> None:
    for line in lines[:MAX_LINES]:
        click.echo(f"{kind} {line}")
    if len(lines) > MAX_LINES:
        click.echo(f"{kind} and {len(lines) - MAX_LINES} more")


@click.group()
def data() -> None:
    """Public data sets: fetch one, split one over devices."""


@data.command("split")
@click.option("--data", "source", required=True, metavar="D", help=f"{', '.join(sources.NAMES)}, or a folder or .npz")
@click.option("--clients", type=click.IntRange(1, 100_000), required=True, help="number of devices")
@click.option("--partition", "how", type=click.Choice(get_args(How)), default="iid", show_default=True)
@click.option("--alpha", type=float, default=0.5, show_default=True, help="dirichlet: smaller is more uneven")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--rows", type=click.IntRange(min=1), help="use only so many training rows, test rows in proportion")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for device-1 ... device-N")
def split_command(source: str, clients: int, how: How, alpha: float, seed: int, rows: int | None, out: Path) -> None:
    """Divide a data set over devices: one feature folder for each."""
    if not source.strip():
        raise DataError(f"--data {source!r}: one of {', '.join(sources.NAMES)}, or a folder or .npz")
    named = source in sources.NAMES
    features = sources.source(source, seed) if named else load(source, {}, Path.cwd())
    parts = split.split(features, clients, how, alpha, seed, rows)
    origin: document.Origin = {"data": Path(source).name, "partition": how, "clients": clients, "seed": seed}
    split.write(parts, out, {**origin, "alpha": alpha} if how == "dirichlet" else origin)
    rows_table = Table("device", "train", "test", "train rows of each class", "test rows of each class")
    for number, part in enumerate(parts, 1):
        sizes = (str(len(part.train_y)), str(len(part.test_y)))
        rows_table.add_row(f"device-{number}", *sizes, _counts(part.train_y), _counts(part.test_y))
    Console().print(rows_table)


@data.command("fetch")
@click.argument("name", type=click.Choice(tuple(fetch.PUBLISHED)))
@click.option("--url", required=True, help="address of cifar-10-binary.tar.gz, or of the folder of MNIST's files")
@click.option("--out", type=click.Path(path_type=Path), help="folder of data sets (default: FLOE_DATA)")
def fetch_command(name: str, url: str, out: Path | None) -> None:
    """Download a data set once and check it by its published hash."""
    root = out or Path(os.environ.get("FLOE_DATA", ""))
    if root == Path():
        raise DataError("where to? --out FOLDER, or set FLOE_DATA to the folder of data sets")
    fetched = fetch.fetch(name, url, root / name)
    click.echo(f"{root / name}: {'fetched, hashes as published' if fetched else 'is there already'}")


def _counts(labels: Labels) -> str:
    classes, counts = np.unique(labels, return_counts=True)
    return ", ".join(f"{label}: {count}" for label, count in zip(classes, counts, strict=True))
