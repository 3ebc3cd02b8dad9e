"""The section of docs/results.md on clients whose data differ. Pure."""

from __future__ import annotations

from pathlib import Path

import stored
from insurance_bank import table

TEXT = Path(__file__).with_suffix(".md")


def section(runs: Path) -> str:
    """The text. Raises `click.ClickException` for runs that are not there."""
    return TEXT.read_text().format(table=table(stored.lines(runs / "insurance_bank" / "run.jsonl")))


def figures(runs: Path) -> dict[str, str]:
    """None."""
    return {}
