"""Every rule: equal updates are the model, and what is no model is not written."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from helpers.updates import base_of, made, result, written

from floe import weights
from floe.adaptive import RULES
from floe.aggregate import next_model
from floe.differences import Differences, factors_to
from floe.errors import RuleError
from floe.mean import PIECE, Update
from floe.plan import Plan, Rule

ALL = get_args(Rule)


@pytest.mark.parametrize("rule", [rule for rule in ALL if rule not in RULES])
def test_equal_updates_are_the_model(tmp_path: Path, rule: str) -> None:
    row = np.random.default_rng(2).normal(size=50).astype("<f4")
    plan = Plan(rule=rule, clip_norm=1e9, byzantine=rule in ("krum", "multi-krum", "trimmed-mean"))
    made(plan, tmp_path, written(tmp_path, [row] * 5, [1, 2, 3, 4, 5]), base_of(tmp_path, np.zeros(50)))
    np.testing.assert_allclose(result(tmp_path), row, rtol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_equal_updates_that_learned_nothing_leave_the_model(tmp_path: Path, rule: str) -> None:
    row = np.random.default_rng(2).normal(size=50).astype("<f4")
    made(Plan(rule=rule), tmp_path, written(tmp_path, [row] * 5), base_of(tmp_path, row))
    assert result(tmp_path).tobytes() == row.tobytes()


@pytest.mark.parametrize("rule", [*RULES, "norm-clipping"])
def test_a_base_of_another_shape_is_refused_where_differences_to_it_are_made(tmp_path: Path, rule: str) -> None:
    with pytest.raises(ValueError, match=r"base: tensor 'w' is missing or another one"):
        made(Plan(rule=rule), tmp_path, written(tmp_path, [[1.0]] * 5), base_of(tmp_path, [1.0, 2.0]))


def test_what_is_no_model_is_not_written_and_the_rule_says_why(tmp_path: Path) -> None:
    """A step ten times the difference, from an attacker whose numbers are as large as they may be."""
    plan = Plan(rule="fedavgm", server_learning_rate=10.0)
    with pytest.raises(RuleError, match=r'rule "fedavgm" makes no model: tensor \'w\' has inf at 0; an update is too'):
        made(plan, tmp_path, written(tmp_path, [[3e38]]), base_of(tmp_path, [0.0]))
    assert {path.name for path in tmp_path.iterdir()} == {"base", "0000"}


def test_no_updates_make_no_model(tmp_path: Path) -> None:
    for rule in ALL:
        with pytest.raises(RuleError, match=r"needs \d updates?, and 0 have weights"):
            made(Plan(rule=rule), tmp_path, [], base_of(tmp_path, [0.0]))


def test_an_optimizer_without_a_place_for_its_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a place for its memory"):
        next_model(Plan(rule="fedadam"), written(tmp_path, [[1.0]]), base_of(tmp_path, [0.0]), tmp_path / "out")


def test_norms_and_clipped_sums_of_differences_go_over_all_float_tensors_and_pieces(tmp_path: Path) -> None:
    rng, files = np.random.default_rng(8), {}
    for name in ("base", "0", "1"):
        files[name] = {"a": rng.normal(size=PIECE + 5).astype("<f4"), "b": rng.normal(size=7), "n": np.array([9])}
        weights.write(tmp_path / name, files[name])
    differences = Differences([Update(tmp_path / k, 1) for k in "01"], tmp_path / "base")
    apart = {k: [files[k][name].astype(float) - files["base"][name] for name in "ab"] for k in "01"}
    norms = [float(np.linalg.norm(np.concatenate(apart[k]))) for k in "01"]
    assert differences.norms() == pytest.approx(norms, rel=1e-12)
    bound = min(norms) / 2
    factors = factors_to(bound, differences.norms())
    assert [f * n for f, n in zip(factors, norms, strict=True)] == pytest.approx([bound, bound])
    assert factors_to(1e9, norms) == [1.0, 1.0]
    for place, tensor in enumerate(differences.floats):
        pieces = list(differences.sums(tensor, factors))
        assert [len(piece) for piece in pieces] == ([PIECE, 5] if tensor.name == "a" else [7])
        expected = factors[0] * apart["0"][place] + factors[1] * apart["1"][place]
        np.testing.assert_allclose(np.concatenate(pieces), expected, rtol=1e-12, atol=1e-15)
