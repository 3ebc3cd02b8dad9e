"""The section of docs/results.md on noise, epsilon and accuracy, and the tables of docs/privacy.md. Pure.

python tests/bench/results_privacy.py          prints them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import privacy
import stored

from floe.privacy import rounded_up

Line = Mapping[str, Any]


def section(runs: Path) -> str:
    """The text. Raises `click.ClickException` for runs that are not there."""
    return (
        f"## Private learning\n\n[privacy.md](privacy.md) says what epsilon is of, and of what not.\n\n{tables(runs)}"
    )


def tables(runs: Path) -> str:
    """Both units. Raises `click.ClickException` for runs that are not there."""
    return "\n\n".join(_of_unit(runs / "privacy", unit) for unit in privacy.NOISE)


def figures(runs: Path) -> dict[str, str]:
    """None."""
    return {}


def table(lines: Sequence[Line]) -> str:
    """A row for each noise multiplier, from all its seeds."""
    noises = sorted({_noise(line) for line in lines})
    return stored.table(
        ["noise multiplier", "epsilon", "accuracy, %"],
        [_row(noise, [line for line in lines if _noise(line) == noise]) for noise in noises],
    )


def _row(noise: float, lines: Sequence[Line]) -> list[str]:
    shares = [line["accuracy"] for line in sorted(lines, key=lambda line: int(line["plan"]["seed"]))]
    each = ", ".join(stored.percent(share) for share in shares)
    epsilon = rounded_up(max(line["epsilon"] for line in lines)) if noise else "none"
    return [f"{noise:g}", epsilon, f"**{stored.percent(fmean(shares))}** ({each})"]


def _of_unit(folder: Path, unit: str) -> str:
    path, tried = folder / f"{unit}.jsonl", folder / f"{unit}-tried.jsonl"
    lines, trial = stored.lines(path), stored.lines(tried)
    expected = {(noise, seed) for noise in privacy.NOISE[unit] for seed in privacy.SEEDS}
    if {(_noise(line), line["plan"]["seed"]) for line in lines} != expected or len(lines) != len(expected):
        raise click.ClickException(f"{path}: not every noise has every seed: `python tests/bench/privacy.py {unit}`")
    (noised,) = {(line["delta"], line["accountant"]) for line in lines if _noise(line)}
    norm, rounds = privacy.NORM[unit], lines[0]["rounds"]
    chosen = privacy.best(unit, trial)
    edge = " (the largest of those tried: larger ones might do better)" if _at_edge(unit, chosen) else ""
    about = (
        f"`python tests/bench/privacy.py {unit}`: digits, {rounds['devices']} devices of 143 or 144 rows (IID), "
        f"{rounds['count']} rounds, linear model. Unit: {UNITS[unit]}; delta {noised[0]:g}; accountant `{noised[1]}`; "
        f"accuracy on 360 test rows: the mean, then seeds {', '.join(map(str, privacy.SEEDS))}. Learning rate "
        f"{chosen['learning_rate']:g} and {norm} {chosen[norm]:g} are the best of {len(trial)} pairs at noise "
        f"multiplier {privacy.TRIED_AT:g} on seed {privacy.SEED_OF_TRIAL}{edge}; no epsilon counts that search:"
    )
    return f"{about}\n\n{table(lines)}"


def _at_edge(unit: str, chosen: Mapping[str, float]) -> bool:
    return any(chosen[key] == max(values) for key, values in privacy.TRIED[unit].items())


UNITS = {"device": "all that a device sends", "example": "one training row"}


def _noise(line: Line) -> float:
    return float(line["plan"].get("noise_multiplier", 0.0))


if __name__ == "__main__":
    click.echo(section(privacy.RUNS.parent))
