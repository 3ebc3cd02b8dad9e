"""The section of docs/results.md on encodings: bytes of a round, and what it costs in accuracy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import stored

TEXT = Path(__file__).with_suffix(".md")
TITLES = {"nbaiot": "N-BaIoT", "mnist": "MNIST"}
PLAIN = ("weights", "float32")
Lines = Sequence[Mapping[str, Any]]
Ways = Mapping[tuple[str, str], Lines]


def section(runs: Path) -> str:
    """The text. Raises `click.ClickException` for runs that are not there."""
    return TEXT.read_text().format(tables="\n".join(_of_data(runs / "encoding" / f"{data}.jsonl") for data in TITLES))


def figures(runs: Path) -> dict[str, str]:
    """None."""
    return {}


def ways_of(path: Path) -> Ways:
    """The lines of each way, sorted by seed. Raises `click.ClickException` unless all ways have the same seeds."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in sorted(stored.lines(path), key=lambda line: int(line["plan"]["seed"])):
        found.setdefault((line["plan"]["upload"], line["plan"]["download"]), []).append(line)
    if PLAIN not in found or len({tuple(line["plan"]["seed"] for line in lines) for lines in found.values()}) > 1:
        raise click.ClickException(f"{path}: not every way has the same seeds: `python tests/bench/encoding.py`")
    return found


def table(found: Ways) -> str:
    """A row for each way, beside plain weights."""
    plain = found[PLAIN]
    several = plain[0]["roc_auc"] is not None
    head = ["upload", "download", "bytes up", "fewer", "bytes down", "fewer", "accuracy, %", "points"]
    return stored.table([*head, *(["ROC-AUC"] * several)], [_row(*way, plain) for way in found.items()])


def _row(way: tuple[str, str], lines: Lines, plain: Lines) -> list[str]:
    figures = [f"`{name}`" for name in way]
    for key in ("bytes_up", "bytes_down"):
        size, before = (fmean(line[key] for line in some) for some in (lines, plain))
        figures += [f"{size:,.0f}", f"{before / size:.2f} x"]
    accuracy, before = (fmean(line["accuracy"] for line in some) for some in (lines, plain))
    figures += [cell([line["accuracy"] for line in lines]), f"{100 * (accuracy - before):+.2f}"]
    return figures + ([cell([line["roc_auc"] for line in lines])] if lines[0]["roc_auc"] is not None else [])


def cell(shares: Sequence[float]) -> str:
    """Mean, and each seed, in %."""
    return f"**{100 * fmean(shares):.2f}** ({', '.join(f'{100 * share:.2f}' for share in shares)})"


def _of_data(path: Path) -> str:
    found = ways_of(path)
    plan, rounds = found[PLAIN][0]["plan"], found[PLAIN][0]["rounds"]
    seeds = ", ".join(str(line["plan"]["seed"]) for line in found[PLAIN])
    size = f"{rounds['devices']} devices, {rounds['count']} rounds, E = {plan['epochs']}, B = {plan['batch_size']}"
    trained = f"`{plan['model']}`, {size}, {plan['optimizer']}, learning rate {plan['learning_rate']:g}"
    told = f"{TITLES[path.stem]}: {trained}; means, then seeds {seeds}"
    return f"\n{told}:\n\n{table(found)}"
