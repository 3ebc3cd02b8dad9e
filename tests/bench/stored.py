"""Stored runs for those who make tables and curves of them: lines of JSON, and Markdown. Pure but for the reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a run. Raises `click.ClickException` if it was not made."""
    return [json.loads(line) for line in _text(path).splitlines()]


def document(path: Path) -> Any:
    """The settings of runs. Raises `click.ClickException` if they are not there."""
    return json.loads(_text(path))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))


def percent(share: float) -> str:
    """0.9582 -> 95.8"""
    return f"{100 * share:.1f}"


def _text(path: Path) -> str:
    if not path.exists() or not (text := path.read_text()):
        raise click.ClickException(f"{path}: no such run; the command that makes it stands in docs/results.md")
    return text
