"""`floe models list|show|export|promote`: the global models. Reads log and model files; writes what is exported.

`promote` alone asks the aggregator for something, by an operator's command.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from aggregator.export import WRITERS
from aggregator.registry import is_signed
from floe import weights
from floe.asker import load_asker
from floe.asking import ROUNDS, asking
from floe.cli import config_options, to_aggregator
from floe.errors import ConfigError, DataError, Refused, StoreError
from floe.files import check_place, fault_of
from floe.identity import load_identity
from floe.settings import Config
from floe.sqlite import Database
from floe.steer import reply_options, tell
from floe.store import FILE, present_model, read_log
from floe.terminal import printable, size_words
from floe.trouble import trouble_of_error, trouble_of_file, trouble_of_version

Row = dict[str, Any]
BUSY_S = 1.0


@click.group()
def models() -> None:
    """The global models of a federation: run it where the aggregator's floe.toml is, or name that with --config."""


@models.command("list")
@config_options(lineage="rounds.lineage")
@click.option("--json", "as_json", is_flag=True, help="a JSON list on stdout")
def list_command(config: Config, as_json: bool) -> None:
    """All global models, with the figures that the devices measured; the next round starts from the present one."""
    found = _rows(config)
    if as_json:
        click.echo(json.dumps(found))
        return
    columns = ("epoch", "round", "sha256", "devices", "samples", "loss", "accuracy", "ROC-AUC", "size", "created", "")
    table = Table(*columns, box=None, pad_edge=False)
    for row in found:
        table.add_row(
            *(str(row["epoch"]), str(row["round"]), row["sha256"][:12], str(row["devices"]), str(row["samples"])),
            *(_number(row[name]) for name in ("loss", "accuracy", "roc_auc")),
            *(size_words(row["bytes"]), row["created_at"], "present" if row["present"] else ""),
        )
    # Wide enough for every column also where a pipe has no width.
    Console(width=max(Console().width, 120)).print(table)


@models.command("show")
@click.argument("round", metavar="ROUND|latest")
@config_options(lineage="rounds.lineage")
@click.option("--epoch", type=click.IntRange(min=1), help="epoch of the lineage  [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def show_command(config: Config, round: str, epoch: int | None, as_json: bool) -> None:
    """Everything about one global model: tensors, schema, hash, signature, and what each device gave to it."""
    row = _find(config, round, epoch)
    about = row | _checked(config, row) | {"personal": _personal(config, row), "updates": _updates(config, row)}
    if as_json:
        click.echo(json.dumps(about))
    else:
        _print(about)


@models.command("export")
@click.argument("round", metavar="ROUND|latest")
@config_options(lineage="rounds.lineage")
@click.option("--epoch", type=click.IntRange(min=1), help="epoch of the lineage  [default: the newest]")
@click.option("--to", "out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--force", is_flag=True, help="replace a file that is there")
def export_command(config: Config, round: str, epoch: int | None, out: Path, force: bool) -> None:
    """Write a global model to a .safetensors, .npz or .pt file.

    .safetensors is the model's own file, with its schema; it and .npz hold the scaling of the features as scaling.mean
    and scaling.scale beside the weights. A .pt is the state dict alone: `load_state_dict(torch.load(file))`.
    """
    if out.suffix not in WRITERS:
        raise ConfigError(f"--to {out}: the ending says the format: {', '.join(WRITERS)}")
    check_place(out, "--to")
    if os.path.lexists(out) and not force:
        raise ConfigError(f"--to {out}: exists already; --force replaces it")
    row = _find(config, round, epoch)
    path = _file(config, row)
    _check_file(path, row)
    WRITERS[out.suffix](path, out)
    click.echo(f"{out}: global model {row['round']}, {size_words(out.stat().st_size)}")


@models.command("promote")
@click.argument("model", metavar="ROUND|HASH")
@reply_options
@to_aggregator
def promote_command(config: Config, model: str, wait: float, as_json: bool) -> None:
    """Make a global model the present one: the next round starts from it, and devices fetch it.

    By its round, or by at least 8 digits of its hash; a model of the newest epoch. Only while no round is open. It is
    the present one until a newer is made, or another is promoted.
    """
    sha256 = _chosen(config, model)["sha256"]
    with asking(config, load_asker(config)) as connection:
        reply = connection.ask(ROUNDS, wait, action="promote", model=sha256)
    tell(config, reply, "", as_json=as_json)


def _chosen(config: Config, model: str) -> Row:
    """A model of the newest epoch by its round, or by the beginning of its hash."""
    rows = _rows(config)
    mine = [row for row in rows if row["epoch"] == rows[-1]["epoch"]]
    found = [row for row in mine if re.fullmatch("[0-9a-f]{8,64}", model) and row["sha256"].startswith(model)]
    if len({row["sha256"] for row in found}) > 1:
        raise DataError(
            f"{model}: the hashes of models {_few([str(row['round']) for row in found])} begin so; give more"
        )
    return found[-1] if found else _find(config, model, None)


def _rows(config: Config) -> list[Row]:
    """The rows of `models` of the lineage, and which is `present`. Raises `StoreError`, `DataError` without any."""
    lineage = config.rounds.lineage
    with _log(config) as log:
        found = list(log.query("SELECT * FROM models WHERE lineage = ? ORDER BY epoch, round", [lineage]))
        if not found:
            raise DataError(f"{_log_file(config)}: no global model of lineage {lineage!r} yet")
        present = present_model(log, lineage, found[-1]["epoch"])
    return [row | {"present": row == present} for row in found]


def _log_file(config: Config) -> Path:
    return config.path(config.paths.log) / FILE


@contextmanager
def _log(config: Config) -> Iterator[Database]:
    """The log, open for reading. Raises `StoreError` for one that is missing, locked, damaged or of another Floe."""
    path = _log_file(config)
    try:
        trouble = trouble_of_file(path)
        if trouble is None:
            with closing(read_log(path, timeout_s=BUSY_S).conn) as connection:
                trouble = trouble_of_version(connection)
                if trouble is None:
                    yield Database(connection)
    except sqlite3.Error as error:
        trouble = trouble_of_error(error)
    if trouble is not None:
        raise StoreError(f"{path}: {trouble}")


def _find(config: Config, round: str, epoch: int | None) -> Row:
    rows = _rows(config)
    epoch = epoch or rows[-1]["epoch"]
    mine = {str(row["round"]): row for row in rows if row["epoch"] == epoch}
    if round == "latest" and mine:
        return list(mine.values())[-1]
    if round not in mine:
        known = _few(list(mine)) or "none"
        raise DataError(f"round {round!r}: no such global model in epoch {epoch}; there are: {known} (or `latest`)")
    return mine[round]


def _few(rounds: Sequence[str]) -> str:
    return ", ".join(rounds if len(rounds) <= _SHOWN else [*rounds[: _SHOWN // 2], "...", *rounds[-_SHOWN // 2 :]])


def _file(config: Config, row: Row) -> Path:
    return config.path(config.paths.models) / str(row["file"])


def _check_file(path: Path, row: Row) -> weights.Layout:
    """The layout of the file that the log speaks of. Raises `DataError`: missing, damaged, another one."""
    if fault := fault_of(path, row["sha256"], row["bytes"]):
        raise DataError(f"{path}: {fault}; the log has model {row['round']} there")
    try:
        return weights.read_layout_of(path)
    except Refused as error:
        raise DataError(f"{path}: {error}") from None


def _checked(config: Config, row: Row) -> Row:
    try:
        layout = _check_file(_file(config, row), row)
    except DataError as error:
        return {"file_check": str(error), "signature_check": _signature(config, row), "tensors": [], "schema": None}
    tensors = [{"name": t.name, "shape": list(t.shape), "dtype": t.dtype.name} for t in layout.tensors]
    schema = json.loads(layout.metadata.get("schema", "null"))
    return {"file_check": "ok", "signature_check": _signature(config, row), "tensors": tensors, "schema": schema}


def _signature(config: Config, row: Row) -> str:
    lineage = row["lineage"]
    keys = config.path(config.paths.state) / f"aggregator-{lineage}" / "keys"
    if not (keys / f"{lineage}.pem").exists():
        return f"not checked: the aggregator's key is not in {keys}"
    public = load_identity(keys, lineage).key
    return "ok" if is_signed(row, public) else "BAD: not made with this aggregator's key"


def _updates(config: Config, row: Row) -> list[Row]:
    with _log(config) as log:
        sql = (
            "SELECT device, samples, loss, accuracy, roc_auc, threshold, sha256 FROM updates WHERE lineage = ? "
            "AND epoch = ? AND round = ? AND task = ? AND outcome = 'accepted' ORDER BY device"
        )
        task = "train" if row["round"] else "init"
        return list(log.query(sql, [row["lineage"], row["epoch"], row["round"], task]))


def _personal(config: Config, row: Row) -> list[str] | None:
    """The names, by pattern, of what stays on the devices: of the round that made a model, or the first to start from
    it; None if no round has said so far.
    """
    with _log(config) as log:
        plan = log.execute(_PLAN, row).fetchone()
    return list(json.loads(plan[0]).get("personal", ())) if plan else None


def _print(about: Row) -> None:
    console = Console(markup=False, emoji=False)  # a tensor's name is a device's word, not ours
    shown = {key: value for key, value in about.items() if key not in ("tensors", "schema", "personal", "updates")}
    for key, value in shown.items():
        console.print(f"{key:16} {'' if value is None else printable(str(value))}", **_PLAIN)
    if schema := about["schema"]:
        names = ", ".join(schema.get("features", ())) or "without names"
        console.print(f"{'schema':16} shape {schema['shape']}, {schema['classes']} classes", **_PLAIN)
        console.print(f"{'features':16} {printable(names)}", **_PLAIN)
    elif about["file_check"] == "ok":
        console.print(f"{'schema':16} none: each device has its own", **_PLAIN)
    if personal := about["personal"]:
        names = printable(", ".join(personal))
        console.print(f"{'personal':16} {names}: stays on each device, and is in no global model", **_PLAIN)
    tensors = Table("tensor", "shape", "dtype", box=None)
    for tensor in about["tensors"]:
        tensors.add_row(printable(tensor["name"]), str(tensor["shape"]), tensor["dtype"])
    updates = Table("device", "samples", "loss", "accuracy", "ROC-AUC", "threshold", box=None)
    for update in about["updates"]:
        numbers = (_number(update[name]) for name in ("loss", "accuracy", "roc_auc", "threshold"))
        updates.add_row(update["device"], str(update["samples"]), *numbers)
    console.print(tensors, updates)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


_SHOWN = 8
_PLAN = """
SELECT plan FROM rounds
WHERE lineage = :lineage AND task != 'sums' AND ((epoch, round) = (:epoch, :round) OR base_sha256 = :sha256)
ORDER BY epoch, round LIMIT 1
"""
_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True}
