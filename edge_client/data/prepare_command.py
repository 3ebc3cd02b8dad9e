"""`floe prepare`: CSVs to feature folders. Writes them and prints what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import numpy as np

from edge_client.data import document, folder
from edge_client.data.features import Labels
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


def _counts(labels: Labels) -> str:
    classes, counts = np.unique(labels, return_counts=True)
    return ", ".join(f"{label}: {count}" for label, count in zip(classes, counts, strict=True))
