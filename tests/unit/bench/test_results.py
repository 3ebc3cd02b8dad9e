"""docs/results.md is what the stored runs give, and a stored run is what its benchmark gives."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import attackers
import attacks
import click
import mcmahan
import numpy as np
import pytest
import results
import results_attacks
import results_encoding
import results_mcmahan
from click.testing import CliRunner
from curve import Axis, Curve, Mark, draw

from floe import weights
from floe.mean import Update

RUNS = results.DOCS / "runs"


def line(round: int, accuracy: float) -> dict[str, Any]:
    return {"round": round, "accuracy": accuracy}


def write(path: Path, accuracies: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line(k, value)) + "\n" for k, value in enumerate(accuracies, 1)))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Runs that nobody made: the rate 0.1 is best, seed 1 of E = 1 ends below 99 %, and so do the shards."""
    folder = tmp_path / "mcmahan"
    for epochs, last in mcmahan.CHOSEN_AFTER.items():
        for rate in mcmahan.RATES:
            write(folder / f"choose-E{epochs}-lr{rate}.jsonl", [0.5] * (last - 3) + [0.98 if rate == 0.1 else 0.97] * 3)
        for seed in mcmahan.SEEDS:
            below = (epochs, seed) == (1, 1)
            write(folder / f"iid-E{epochs}-seed{seed}.jsonl", [0.9] * (3 + seed) + [0.985 if below else 0.9901])
    write(folder / "shards-E5-seed0.jsonl", [0.2, 0.95, 0.93])
    for path in [*folder.glob("iid*"), *folder.glob("shards*")]:
        path.with_suffix(".json").write_text('{"plan": {"learning_rate": 0.1}}')
    return tmp_path


def test_the_document_and_its_figures_are_what_the_stored_runs_give() -> None:
    assert list(results.differing(results.made(RUNS), results.DOCS)) == []


def test_check_names_what_is_not_as_it_would_be_made(
    tmp_path: Path, mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "SECTIONS", (results_mcmahan,))
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "runs").symlink_to(mnist)
    made = CliRunner().invoke(results.main, ["--docs", str(docs)])
    assert made.exit_code == 0, made.output
    assert CliRunner().invoke(results.main, ["--docs", str(docs), "--check"]).exit_code == 0
    (docs / "results.md").write_text("# Results\n\n99.9 %\n")
    (docs / "results" / "old.svg").write_text("<svg/>")
    checked = CliRunner().invoke(results.main, ["--docs", str(docs), "--check"])
    assert checked.exit_code == 1
    assert [told.split(":")[0] for told in checked.output.splitlines()] == ["docs/results.md", "docs/results/old.svg"]


@pytest.mark.parametrize("section", [results_attacks.section, results_encoding.section, results_mcmahan.section])
def test_runs_that_are_not_there_end_it_with_their_name(tmp_path: Path, section: Any) -> None:
    with pytest.raises(click.ClickException, match=f"{tmp_path}/.*: no such run"):
        section(tmp_path)


def test_a_run_that_is_missing_among_the_attacks_is_named(tmp_path: Path) -> None:
    keys = [(attack, rule, seed) for attack in attackers.ATTACKS for rule in attacks.RULES for seed in attacks.SEEDS]
    accuracies = {"accuracy": [0.5] * attacks.ROUNDS, "success": [0.0] * attacks.ROUNDS}
    lines = [
        json.dumps({"attack": attack, "rule": rule, "seed": seed, **accuracies}) + "\n" for attack, rule, seed in keys
    ]
    (tmp_path / "iid.jsonl").write_text("".join(lines))
    table = results_attacks.table(results_attacks.complete(tmp_path / "iid.jsonl"))
    assert table.splitlines()[2] == f"| `fedavg` {'| **50.0** (50.0, 50.0, 50.0) ' * 5}| **0.0** (0.0, 0.0, 0.0) |"
    (tmp_path / "iid.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(click.ClickException, match="no run of backdoor against norm-clipping, seed 2"):
        results_attacks.complete(tmp_path / "iid.jsonl")


@pytest.mark.parametrize(
    ("attack", "rule"), [("sign-flip", "multi-krum"), ("none", "fedadam"), ("label-flip", "fedprox")]
)
def test_a_stored_run_of_the_attacks_is_measured_again(attack: str, rule: str) -> None:
    lines = map(json.loads, (RUNS / "attacks" / "iid.jsonl").read_text().splitlines())
    case, rounds = attacks.Case(attack, rule, "iid", 0), 5
    (stored,) = (line for line in lines if {**line, **asdict(case)} == line)
    again = attacks.measure(case, attacks.chosen(RUNS / "attacks")[rule], rounds)
    # Bit for bit on the machine that made it; another one may round otherwise, and tell 4 of 359 rows otherwise.
    assert again["accuracy"] == pytest.approx(stored["accuracy"][:rounds], abs=0.012)
    assert again["accuracy"][-1] > 0.5


def test_the_settings_beside_the_attacks_are_those_of_the_benchmark() -> None:
    found = json.loads((RUNS / "attacks" / "settings.json").read_text())
    assert {**found, **attacks.settings()} == found
    for rule, keys in attacks.RULES.items():
        assert {**found["rules"][rule], **keys} == found["rules"][rule]


def test_what_was_tried_decides_the_keys_of_the_rules() -> None:
    lines = [json.loads(line) for line in (RUNS / "attacks" / "tried.jsonl").read_text().splitlines()]
    rules = attacks.chosen(RUNS / "attacks")
    assert {rule: rules[rule][key] for rule, (key, _) in attacks.TRIED.items()} == {
        rule: attacks.best(rule, lines) for rule in attacks.TRIED
    }
    assert {(line["attack"], line["seed"]) for line in lines} == {("none", attacks.CHOOSING)}


def test_the_best_value_is_that_of_all_partitions_together_and_of_equal_ones_the_smaller() -> None:
    lines = [
        {"rule": "fedprox", "keys": {"mu": mu}, "accuracy": [0.0, *[accuracy] * attacks.LAST]}
        for mu, accuracies in ((0.01, (0.5, 0.6)), (0.1, (0.75, 0.75)), (1.0, (0.5, 1.0)))
        for accuracy in accuracies
    ]
    assert attacks.best("fedprox", lines) == 0.1
    with pytest.raises(click.ClickException, match="fedprox was not tried with mu = 1"):
        attacks.best("fedprox", lines[:-1])


def test_the_memory_of_a_rule_goes_with_the_base_from_round_to_round(tmp_path: Path) -> None:
    keys = {"server_momentum": 0.5, "server_learning_rate": 1.0}
    federation = attacks.Federation(
        attacks.Case("none", "fedavgm", "iid", 0), attacks.source("digits", 0), keys, tmp_path
    )
    began, moved = weights.read(federation.base), []
    weights.write(tmp_path / "update", {name: array + np.float32(1) for name, array in began.items()}, sync=False)
    updates, name = [Update(tmp_path / "update", 1)], min(began)
    for sent in (updates, updates, [], updates):  # v: 1; 0.5 + 0; a void round; 0.25 - 0.5
        federation.advance(sent)
        moved.append(float((weights.read(federation.base)[name] - began[name]).mean()))
    assert moved == pytest.approx([1, 1.5, 1.5, 1.25], abs=1e-5)


def test_the_attackers_send_what_their_papers_say() -> None:
    base, trained = {"w": np.float32([1, 2])}, {"w": np.float32([2, 4])}
    chance = np.random.default_rng(0)
    assert attackers.ATTACKS["sign-flip"].send(base, trained, chance)["w"].tolist() == [-4, -8]
    assert attackers.ATTACKS["backdoor"].send(base, trained, chance)["w"].tolist() == [6, 12]
    noise = attackers.ATTACKS["gaussian"].send(base, trained, np.random.default_rng(0))["w"] - base["w"]
    assert noise == pytest.approx(np.random.default_rng(0).normal(size=2), abs=1e-6)


def test_the_backdoor_is_four_pixels_and_another_name() -> None:
    whole = attacks.source("digits", 0)
    poisoned, others = attackers.with_backdoor(whole), whole.train_y != attackers.TARGET
    added = poisoned.train_x[len(whole.train_y) :]
    assert set(poisoned.train_y[len(whole.train_y) :].tolist()) == {attackers.TARGET}
    assert ((added != whole.train_x[others]).reshape(len(added), -1).sum(axis=1) <= 4).all()
    assert (added[:, 0, 6:, :2] == 1).all()
    flipped = attackers.flipped(whole)
    assert (flipped.train_y + whole.train_y == 9).all()
    assert (flipped.test_y == whole.test_y).all()


def test_rounds_to_the_target_are_counted_and_those_that_have_not_come_are_not_guessed(mnist: Path) -> None:
    assert results_mcmahan.rounds(mnist / "mcmahan").splitlines()[2:] == [
        "| E = 5 | 0.1 | 4 | 5 | 6 | **5** | 20 | 26 |",
        "| E = 1 | 0.1 | 4 | not in 5 (best 98.50 %) | 6 | **6** | 34 | 45 |",
    ]
    text = results_mcmahan.section(mnist)
    assert "the best was 95.00 % at round 2, the last 93.00 %" in text
    assert "| 0.1 | 98.00 %, taken | 98.00 %, taken |" in text


@pytest.mark.parametrize("epochs", mcmahan.CHOSEN_AFTER)
def test_the_text_is_refused_where_the_grid_of_rates_had_ended_too_early(mnist: Path, epochs: int) -> None:
    last = mcmahan.CHOSEN_AFTER[epochs]
    write(mnist / "mcmahan" / f"choose-E{epochs}-lr{mcmahan.RATES[-1]}.jsonl", [0.99] * last)
    with pytest.raises(click.ClickException, match="the best learning rate is the largest"):
        results_mcmahan.section(mnist)


def test_two_seeds_that_never_came_have_no_median(mnist: Path) -> None:
    write(mnist / "mcmahan" / "iid-E1-seed2.jsonl", [0.9, 0.98])
    assert "| **never** | 34 | 45 |" in results_mcmahan.rounds(mnist / "mcmahan")


def test_the_axis_of_the_shards_goes_on_to_the_rounds_of_the_paper(mnist: Path) -> None:
    drawn = results_mcmahan.figures(mnist)["mcmahan-shards.svg"]
    assert "the paper&#x27;s 229" in drawn
    assert ">240</text>" in drawn


def test_a_curve_has_its_points_where_the_axes_say() -> None:
    x, y = Axis("round", 0, 10, 5), Axis("%", 0, 100, 50)
    drawn = draw([Curve("one", [(0, 0), (10, 100), (5, 150)])], x, y, [Mark("here", 5, True)])
    assert 'points="56.0,280.0 616.0,20.0 336.0,20.0"' in drawn
    assert 'd="M336.0 20v260"' in drawn
    assert [f">{number}</text>" in drawn for number in (0, 5, 10, 50, 100)] == [True] * 5


def encoded(upload: str, download: str, seed: int, size: float, accuracy: float) -> dict[str, Any]:
    plan = {"upload": upload, "download": download, "seed": seed, "model": "cnn", "epochs": 1, "batch_size": 10}
    return {
        "plan": {**plan, "optimizer": "sgd", "learning_rate": 0.05}, "rounds": {"devices": 10, "count": 3},
        "bytes_up": size, "bytes_down": 2000.0, "accuracy": accuracy, "roc_auc": None,
    }  # fmt: skip


def test_an_encoding_stands_beside_plain_weights(tmp_path: Path) -> None:
    lines = [encoded("weights", "float32", seed, 4000, 0.9) for seed in (1, 0)]
    lines += [encoded("int8", "float16", seed, 1000, 0.899 + 0.001 * seed) for seed in (0, 1)]
    (tmp_path / "mnist.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert results_encoding.table(results_encoding.ways_of(tmp_path / "mnist.jsonl")).splitlines()[2:] == [
        "| `weights` | `float32` | 4,000 | 1.00 x | 2,000 | 1.00 x | **90.00** (90.00, 90.00) | +0.00 |",
        "| `int8` | `float16` | 1,000 | 4.00 x | 2,000 | 1.00 x | **89.95** (89.90, 90.00) | -0.05 |",
    ]
    (tmp_path / "mnist.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    with pytest.raises(click.ClickException, match="not every way has the same seeds"):
        results_encoding.ways_of(tmp_path / "mnist.jsonl")
