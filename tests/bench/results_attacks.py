"""The section of docs/results.md on devices that lie: attack by rule, for each partition. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import stored
from attackers import ATTACKS
from attacks import LAST, PARTITIONS, ROUNDS, RULES, SEEDS, TRIED, score

HEADS = {
    "none": "no attack",
    "label-flip": "labels flipped",
    "sign-flip": "sign flipped",
    "gaussian": "Gaussian",
    "backdoor": "backdoor",
}
TITLES = {"iid": "Rows dealt at random (IID)", "dirichlet": "Rows dealt by Dirichlet(0.5)"}
Run = Mapping[str, Any]

TEXT = Path(__file__).with_suffix(".md")


def section(runs: Path) -> str:
    """The text. Raises `click.ClickException` for runs that are not there."""
    settings = stored.document(runs / "attacks" / "settings.json")
    tables = (f"\n{TITLES[one]}:\n\n{table(complete(runs / 'attacks' / f'{one}.jsonl'))}" for one in PARTITIONS)
    rules = settings["rules"]
    values = settings["plan"] | rules["fedadam"] | settings | {
        "kept": settings["devices"] - settings["malicious"],
        "clip_norm": rules["norm-clipping"]["clip_norm"],
        "last": LAST,
        "rate": rules["fedavgm"]["server_learning_rate"],
        "ends": ", ".join(f"`{one}`" for one, (key, grid) in TRIED.items() if rules[one][key] in (grid[0], grid[-1])),
        "tried": grids(rules, stored.lines(runs / "attacks" / "tried.jsonl")),
        "seeds": ", ".join(map(str, SEEDS)),
        "tables": "\n".join(tables),
    }  # fmt: skip
    return TEXT.read_text().format(**values)


def figures(runs: Path) -> dict[str, str]:
    """None."""
    return {}


def grids(rules: Mapping[str, Mapping[str, Any]], lines: Sequence[Run]) -> str:
    """A row for each rule: every value of its grid, with its score; the taken one in bold."""
    rows = []
    for rule, (key, values) in TRIED.items():
        cells = [f"{value:g}: {stored.percent(score(rule, value, lines))}" for value in values]
        taken = values.index(rules[rule][key])
        cells[taken] = f"**{cells[taken]}**"
        rows.append([f"`{rule}`", f"`{key}`", ", ".join(cells)])
    return stored.table(["rule", "key", "value: accuracy, %"], rows)


def complete(path: Path) -> Mapping[tuple[str, str, int], Run]:
    """The runs of a partition by attack, rule, seed. Raises `click.ClickException` where one is missing."""
    found = {(line["attack"], line["rule"], line["seed"]): line for line in stored.lines(path)}
    for attack in ATTACKS:
        for rule in RULES:
            for seed in SEEDS:
                if len(found.get((attack, rule, seed), {}).get("accuracy", ())) != ROUNDS:
                    raise click.ClickException(
                        f"{path}: no run of {attack} against {rule}, seed {seed}: `python tests/bench/attacks.py run`"
                    )
    return found


def table(found: Mapping[tuple[str, str, int], Run]) -> str:
    """A row for each rule."""
    rows = [
        [
            f"`{rule}`",
            *(cell([found[attack, rule, seed]["accuracy"][-1] for seed in SEEDS]) for attack in ATTACKS),
            cell([found["backdoor", rule, seed]["success"][-1] for seed in SEEDS]),
        ]
        for rule in RULES
    ]
    return stored.table(["rule", *(HEADS[attack] for attack in ATTACKS), "backdoor's success"], rows)


def cell(values: Sequence[float]) -> str:
    """Mean, and each seed."""
    return f"**{stored.percent(fmean(values))}** ({', '.join(map(stored.percent, values))})"
