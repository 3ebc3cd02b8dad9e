"""The section of docs/results.md on N-BaIoT: anomalies of nine devices. Pure."""

from __future__ import annotations

from pathlib import Path

import stored
from anomaly import table

TEXT = Path(__file__).with_suffix(".md")


def section(runs: Path) -> str:
    """The text. Raises `click.ClickException` for runs that are not there."""
    return TEXT.read_text().format(table=table(stored.lines(runs / "nbaiot" / "run.jsonl")))


def figures(runs: Path) -> dict[str, str]:
    """None."""
    return {}
