"""Insurance claims and bank customers in one federation, although they have no feature in common.

    python tests/bench/insurance_bank.py run       seeds 0 to 4
    python tests/bench/insurance_bank.py table     the table of docs/results.md, from docs/runs/insurance_bank/run.jsonl

The first and the last layer of a small network are each client's own, the layer between is shared (docs/personal.md).
For each seed, which decides the first weights, the order of rows, and the claims' split (the customers' is the one that
an .npz always has): `floe simulate` of the two together, and of each alone with the same plan, so with the same epochs
and the same restarts of Adam.

What it measures is the ROC-AUC on each client's own test rows, of frauds (6 %) and of subscriptions (11 %): of the
client's layers joined with the shared layer, and of its own model, as its last training left it.

How the settings were chosen: on seeds 100 to 102, a fifth of the training rows of the split of seed 0 held out, between
two networks, looking at the ROC-AUC of each client both alone and together: so the choice may favour the federation a
little. Of the claims, rows held out then can be test rows of seeds 1 to 4.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from anomaly import Line, markdown

from demo.folder import environment

RUNS = Path(__file__).parents[2] / "docs" / "runs" / "insurance_bank"
SEEDS = (0, 1, 2, 3, 4)
SOURCES = {
    "insurance": "insurance_fraud_oracle/fraud_oracle.csv.gz --label FraudFound_P --normal 0 --drop PolicyNumber "
    "--seed {}",
    "bank": "bank_campaign/5_campaign.npz",
}
ROUNDS = 10
PLAN = {
    "model": "mlp", "hidden": [64, 32], "epochs": 1, "batch_size": 256, "learning_rate": 0.001,
    "schema": "own", "scaling": "local", "personal": ["1.0.*", "1.4.*"],
}  # fmt: skip


def floe(place: Path, *arguments: str) -> None:
    """One command of Floe in a folder. Raises `click.ClickException` with what it said."""
    command = [sys.executable, "-m", "floe", *arguments]
    done = subprocess.run(command, cwd=place, env=environment({}, os.environ), capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"floe {' '.join(arguments)}: {done.stderr[-500:]}")


def simulated(features: Path, clients: Sequence[str], seed: int) -> dict[str, dict[str, float]]:
    """Each client's ROC-AUC after the last round: `joined` and `own`."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for client in clients:
            shutil.copytree(features / client, place / "features" / client)
        settings = {
            "rounds": {"count": ROUNDS, "devices": len(clients)},
            "plan": {**PLAN, "seed": seed},
            "device": {"threads": 1},
        }
        (place / "floe.toml").write_text("".join(f"[{table}]\n{_toml(keys)}" for table, keys in settings.items()))
        floe(place, "simulate")
        with (place / "log" / "updates.csv").open() as file:
            measured = [row for row in csv.DictReader(file) if row["task"] == "evaluate"]
    return {row["device"]: {"joined": float(row["base_roc_auc"]), "own": float(row["roc_auc"])} for row in measured}


def _toml(keys: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def lines_of(seed: int) -> list[Line]:
    """One line for each client."""
    with tempfile.TemporaryDirectory() as name:
        for client, arguments in SOURCES.items():
            file, *options = arguments.format(seed).split()
            source = str(Path(os.environ["FLOE_DATA"]).absolute() / file)
            floe(Path(name), "prepare", source, "--client", client, *options)
        features = Path(name) / "features"
        together = simulated(features, list(SOURCES), seed)
        alone = {client: simulated(features, [client], seed)[client]["own"] for client in SOURCES}
    return [
        {"client": client, "seed": seed, "alone": alone[client], **together[client], "rounds": ROUNDS, "plan": PLAN}
        for client in SOURCES
    ]


def table(lines: Sequence[Line]) -> str:
    """Markdown: ROC-AUC of each client alone and in the federation, each seed, and the mean gain with its error."""
    rows = [["client", "seed", "alone", "in the federation: own model", "gain", "with the shared layer", "gain"]]
    for client in dict.fromkeys(line["client"] for line in lines):
        found = [line for line in lines if line["client"] == client]
        columns = [
            [line["alone"] for line in found],
            *(
                column
                for key in ("own", "joined")
                for column in ([line[key] for line in found], [line[key] - line["alone"] for line in found])
            ),
        ]
        for number, line in enumerate(found):
            rows.append(
                [client, str(line["seed"]), *(_figure(column[number], at) for at, column in enumerate(columns))]
            )
        means = [_figure(statistics.fmean(column), at) for at, column in enumerate(columns)]
        rows.append([f"**{client}**", "mean", *means])
        rows.append([client, "standard error", *(f"{_error(column):.4f}" for column in columns)])
    return markdown(rows) + "\n"


def _figure(value: float, at: int) -> str:
    return f"{value:+.4f}" if at in (2, 4) else f"{value:.4f}"


def _error(column: Sequence[float]) -> float:
    return statistics.stdev(column) / math.sqrt(len(column))


@click.group(help=__doc__)
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="folder of the stored runs")
@click.pass_context
def main(context: click.Context, runs: Path) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    context.obj = runs / "run.jsonl"


@main.command()
@click.option("--seed", type=int, multiple=True, default=SEEDS)
@click.pass_obj
def run(stored: Path, seed: tuple[int, ...]) -> None:
    """Together and alone, on the test rows."""
    for one in seed:
        with stored.open("a") as file:
            for line in lines_of(one):
                file.write(json.dumps(line) + "\n")
                click.echo(json.dumps({key: line[key] for key in ("client", "seed", "alone", "own", "joined")}))


@main.command("table")
@click.pass_obj
def table_command(stored: Path) -> None:
    """The table of the stored runs."""
    click.echo(table([json.loads(line) for line in stored.read_text().splitlines()]), nl=False)


if __name__ == "__main__":
    main()
