"""The section of docs/results.md on McMahan et al. 2017: rates that were tried, rounds to 99 %, curves. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
import stored
from curve import Axis, Curve, Mark, draw
from mcmahan import AT_MOST, CHOSEN_AFTER, RATES, SEEDS, TARGET, chosen

PAPER, REPRODUCED = {5: 20, 1: 34}, {5: 26, 1: 45}  # rounds, by epochs
PAPER_SHARDS = 229  # rounds of E = 5, B = 10 (non-IID), table 2
Lines = Sequence[Mapping[str, Any]]

TEXT = Path(__file__).with_suffix(".md")


def section(runs: Path) -> str:
    """The text. Raises `click.ClickException` for runs that are not there, or that make what the text says false."""
    folder = runs / "mcmahan"
    shards = stored.lines(folder / "shards-E5-seed0.jsonl")
    if any(chosen(folder, str(epochs)) == RATES[-1] for epochs in PAPER):
        raise click.ClickException(f"{folder}: the best learning rate is the largest: the text says that it is not")
    return TEXT.read_text().format(
        after=f"E = 5: of {CHOSEN_AFTER[5]}, E = 1: of {CHOSEN_AFTER[1]}",
        rates=rates(folder),
        most=AT_MOST,
        rounds=rounds(folder),
        shard_rounds=len(shards),
        shard_rate=_rate(folder / "shards-E5-seed0.json"),
        paper_shards=PAPER_SHARDS,
        shards=of_shards(shards),
    )


def figures(runs: Path) -> dict[str, str]:
    """SVG files by name."""
    folder = runs / "mcmahan"
    by_chance = [
        Curve(f"E = {epochs}, seed {seed}", points(stored.lines(path)), dash, 2.2 if epochs == 5 else 1)
        for dash, seed in enumerate(SEEDS)
        for epochs in PAPER
        for path in [folder / f"iid-E{epochs}-seed{seed}.jsonl"]
    ]
    longest = max(len(one.points) for one in by_chance)
    rounds_axis = Axis("round", 0, 10 * math.ceil(max(longest, *PAPER.values()) / 10), 10)
    shards = Curve("two classes a client, E = 5, seed 0", points(stored.lines(folder / "shards-E5-seed0.jsonl")))
    goal, paper = Mark("99 %", 100 * TARGET, False), Mark(f"the paper's {PAPER_SHARDS}", PAPER_SHARDS, True)
    papers = [Mark(f"the paper's {at} (E = {epochs})", at, True) for epochs, at in PAPER.items()]
    return {
        "mcmahan-iid.svg": draw(by_chance, rounds_axis, Axis("test accuracy, %", 90, 100, 2), [goal, *papers]),
        "mcmahan-shards.svg": draw(
            [shards], Axis("round", 0, 240, 20), Axis("test accuracy, %", 0, 100, 20), [goal, paper]
        ),
    }


def rates(folder: Path) -> str:
    """A row for each learning rate."""
    taken = {epochs: chosen(folder, str(epochs)) for epochs in PAPER}
    rows = [
        [rate, *(_of_rate(folder, epochs, rate) + (", taken" if rate == taken[epochs] else "") for epochs in PAPER)]
        for rate in RATES
    ]
    return stored.table(["learning rate", *(f"E = {epochs}" for epochs in PAPER)], rows)


def _of_rate(folder: Path, epochs: int, rate: float) -> str:
    lines = stored.lines(folder / f"choose-E{epochs}-lr{rate}.jsonl")
    return f"{100 * fmean(line['accuracy'] for line in lines[-3:]):.2f} %"


def rounds(folder: Path) -> str:
    """A row for each number of epochs."""
    head = ["", "learning rate", *(f"seed {seed}" for seed in SEEDS), "median", "paper", "a reproduction"]
    return stored.table(head, [_of_epochs(folder, epochs) for epochs in PAPER])


def _of_epochs(folder: Path, epochs: int) -> list[object]:
    paths = [folder / f"iid-E{epochs}-seed{seed}.jsonl" for seed in SEEDS]
    runs = [stored.lines(path) for path in paths]
    taken, middle = {f"{_rate(path.with_suffix('.json')):g}" for path in paths}, median(map(reached, runs))
    return [
        f"E = {epochs}", ", ".join(sorted(taken)), *map(told, runs),
        f"**{middle:g}**" if math.isfinite(middle) else "**never**", PAPER[epochs], REPRODUCED[epochs],
    ]  # fmt: skip


def _rate(settings: Path) -> float:
    return float(stored.document(settings)["plan"]["learning_rate"])


def reached(lines: Lines) -> float:
    """The first round with `TARGET`; infinite if none has it."""
    return next((line["round"] for line in lines if line["accuracy"] >= TARGET), math.inf)


def told(lines: Lines) -> str:
    """The same in words."""
    if math.isfinite(at := reached(lines)):
        return f"{at:g}"
    return f"not in {len(lines)} (best {100 * max(line['accuracy'] for line in lines):.2f} %)"


def of_shards(lines: Lines) -> str:
    """What came of the pathological split, without a guess at what is beyond its last round."""
    best = max(lines, key=lambda line: line["accuracy"])
    if math.isfinite(at := reached(lines)):
        return f"Here 99 % was reached at round {at:g}."
    return (
        f"Here {len(lines)} rounds were run, and 99 % was not reached: the best was {100 * best['accuracy']:.2f} % at "
        f"round {best['round']}, the last {100 * lines[-1]['accuracy']:.2f} %. How many more it would take is not "
        "measured; the same command with more rounds goes on where it ended."
    )


def points(lines: Lines) -> list[tuple[float, float]]:
    """Round and accuracy in %."""
    return [(line["round"], 100 * line["accuracy"]) for line in lines]
