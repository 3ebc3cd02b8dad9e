"""`floe data split`, `floe data show`, `floe data fetch`. Writes feature folders and prints what is in them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from rich.console import Console

from edge_client.data import fetch, folder, holdings, natural, picture, sources
from edge_client.data.document import Document, Origin
from edge_client.data.features import Features
from edge_client.data.load import load
from edge_client.data.split import Devices, numbered, split, split_by, write
from floe.errors import DataError
from floe.files import check_place, write_atomically
from floe.partitions import ALPHA, ALPHA_HELP, BY_HELP, WITH_ALPHA, How, check

NATURAL = "natural"


@click.group()
def data() -> None:
    """Data sets: fetch one, split one over devices, show who holds what."""


@data.command("split")
@click.option("--data", "source", required=True, metavar="D",
              help=f"{', '.join(sources.NAMES)}, {natural.NBAIOT}, or a folder or .npz")  # fmt: skip
@click.option("--clients", type=click.IntRange(1, 100_000), help="number of devices; natural: the data's own")
@click.option("--partition", "how", type=click.Choice((*get_args(How), NATURAL)), default="iid", show_default=True)
@click.option("--alpha", type=float, help=ALPHA_HELP)
@click.option("--by", metavar="COL", help=BY_HELP)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--rows", type=click.IntRange(min=1), help="use only so many training rows, test rows in proportion")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for device-1 ... device-N")
@click.option("--force", is_flag=True, help="replace devices in OUT although they were made from something else")
def split_command(source: str, how: str, out: Path, force: bool, **choices: Any) -> None:
    """Divide a data set over devices: one feature folder for each.

    natural: the data is a folder with an .npz for each device, or nbaiot; a device is called after its file.
    """
    if not source.strip():
        raise DataError(f"--data {source!r}: one of {', '.join(sources.NAMES)}, or a folder or .npz")
    if out.resolve().is_relative_to(Path(source).resolve()) and (Path(source) / "train_x.npy").exists():
        raise DataError(f"--out {out}: lies in the data that is divided; choose a folder beside it")
    devices = _natural(source, **choices) if how == NATURAL else _divided(source, how, **choices)
    write(devices, out, force=force)
    found = [holdings.of(name, features.train_y, features.test_y) for name, (features, _) in devices.items()]
    holdings.show(Console(), found)


def _natural(source: str, **choices: Any) -> Devices:
    given = [name for name, value in choices.items() if value is not None and name != "seed"]
    if given:
        raise DataError(f"--{given[0]}: {NATURAL} does not use it, for the data comes divided; leave it out")
    return natural.devices(source)


def _divided(
    source: str, how: str, clients: int | None, alpha: float | None, by: str | None, seed: int, rows: int | None
) -> Devices:
    check(how, alpha, by)
    if source == natural.NBAIOT:
        raise DataError(f"--data {source}: comes divided, a file for each device: --partition {NATURAL}")
    if clients is None:
        raise DataError("--clients N: over how many devices?")
    if alpha is None and how in WITH_ALPHA:
        alpha = ALPHA
    features, described = _whole(source, seed)
    origin: Origin = {"data": Path(source).name, "sha256": _digest(features), "partition": how, "clients": clients}
    given = {"alpha": alpha, "by": by, "seed": seed, "rows": rows}
    origin |= {name: value for name, value in given.items() if value is not None}
    if by:
        parts, holds = split_by(features, described.columns, clients, by, seed, rows)
        return numbered(parts, described, origin, holds)
    return numbered(split(features, clients, how, ALPHA if alpha is None else alpha, seed, rows), described, origin)


def _whole(source: str, seed: int) -> tuple[Features, Document]:
    if source in sources.NAMES:
        features = sources.source(source, seed)
        return features, Document(schema=features.schema)
    features = load(source, {}, Path.cwd())
    return features, folder.description(Path(source).expanduser()) or Document(schema=features.schema)


def _digest(features: Features) -> str:
    """SHA-256 over the arrays: which data it was, whatever its name."""
    digest = hashlib.sha256()
    for name in folder.ARRAYS:
        digest.update(np.ascontiguousarray(getattr(features, name)).data)
    return digest.hexdigest()


@data.command("show")
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--svg", type=click.Path(path_type=Path), help="write a picture of it to this file, too")
def show_command(root: Path, svg: Path | None) -> None:
    """Who holds what: of DIR, with a feature folder for each device, the rows of every class."""
    if svg:
        check_place(svg, "--svg")
    found = holdings.read(root)
    holdings.show(Console(), found)
    if svg:
        write_atomically(svg, picture.draw(found).encode())
        click.echo(f"wrote {svg}")


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
