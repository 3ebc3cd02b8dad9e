"""docs/privacy.md has the tables that the stored runs of noise give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import privacy
import pytest
import results_privacy

DOCS = privacy.RUNS.parents[1]


def line(unit: str, noise: float, seed: int, accuracy: float) -> dict[str, Any]:
    plan = privacy.plan_of(unit, noise, seed, {"learning_rate": 0.1, privacy.NORM[unit]: 0.3})
    spent = {"epsilon": 2.341, "delta": 1e-3, "accountant": "rdp"} if noise else {"epsilon": None, "delta": None}
    return {"plan": plan, "rounds": privacy.ROUNDS, "accuracy": accuracy, "accountant": None, **spent}


def write(folder: Path, unit: str, lines: list[dict[str, Any]]) -> None:
    (folder / "privacy").mkdir(exist_ok=True)
    trial = [line(unit, privacy.TRIED_AT, privacy.SEED_OF_TRIAL, 0.5)]
    for name, some in ((unit, lines), (f"{unit}-tried", trial)):
        (folder / "privacy" / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some))


def test_the_document_has_the_tables_of_the_stored_runs() -> None:
    assert results_privacy.tables(DOCS / "runs") in (DOCS / "privacy.md").read_text()


def test_a_row_has_the_mean_of_its_seeds_and_epsilon_rounded_up() -> None:
    lines = [line("device", noise, seed, 0.9 - noise / 10 - seed / 100) for seed in (1, 0) for noise in (1.0, 0.0)]
    assert results_privacy.table(lines).splitlines()[2:] == [
        "| 0 | none | **89.5** (90.0, 89.0) |",
        "| 1 | 2.35 | **79.5** (80.0, 79.0) |",
    ]


def test_a_run_that_is_missing_is_named(tmp_path: Path) -> None:
    for unit, noises in privacy.NOISE.items():
        write(tmp_path, unit, [line(unit, noise, seed, 0.5) for noise in noises for seed in privacy.SEEDS])
    assert "| 0.5 | 2.35 | **50.0** (50.0, 50.0, 50.0) |" in results_privacy.tables(tmp_path)
    write(tmp_path, "example", [line("example", noise, 0, 0.5) for noise in privacy.NOISE["example"]])
    with pytest.raises(click.ClickException, match=r"not every noise has every seed: .*privacy\.py example"):
        results_privacy.tables(tmp_path)


def test_the_stored_trial_is_of_the_pairs_that_the_benchmark_has() -> None:
    for unit, tried in privacy.TRIED.items():
        lines = [json.loads(one) for one in (privacy.RUNS / f"{unit}-tried.jsonl").read_text().splitlines()]
        norm = privacy.NORM[unit]
        pairs = {(one["plan"]["learning_rate"], one["plan"][norm]) for one in lines}
        assert pairs == {(rate, one) for rate in tried["learning_rate"] for one in tried[norm]}
        chosen = privacy.best(unit, lines)
        runs = [json.loads(one)["plan"] for one in (privacy.RUNS / f"{unit}.jsonl").read_text().splitlines()]
        assert {**runs[-1], **chosen} == runs[-1]
