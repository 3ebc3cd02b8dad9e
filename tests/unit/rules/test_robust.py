"""The robust rules: worked by hand, against numpy, SciPy and the papers, and what liars cannot do."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.updates import base_of, made, model, result, written
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy import stats

from floe import robust, weights
from floe.aggregate import next_model
from floe.errors import RuleError
from floe.mean import PIECE, Update
from floe.plan import Plan

MEDIAN, TRIMMED = Plan(rule="median"), Plan(rule="trimmed-mean", byzantine=1)
KRUM, MULTI = Plan(rule="krum", byzantine=1), Plan(rule="multi-krum", byzantine=1)
ROBUST = [MEDIAN, TRIMMED, KRUM, MULTI]
LINE = [[0.0], [1.0], [3.0], [4.0], [100.0]]  # on a line, and far from it a liar


def test_the_median_by_hand_of_an_odd_and_of_an_even_number(tmp_path: Path) -> None:
    assert model(MEDIAN, tmp_path, [[1, 9], [5, -9], [2, 0]]) == [2.0, 0.0]
    assert model(MEDIAN, tmp_path, [[1, 9], [5, -9], [2, 0], [100, 1]]) == [3.5, 0.5]


def test_the_trimmed_mean_by_hand(tmp_path: Path) -> None:
    # without 0 and 100: (1 + 3 + 4) / 3; without -7 and 9: (1 + 2 + 3) / 3
    assert model(TRIMMED, tmp_path, [[0, 9], [1, 1], [3, 2], [4, 3], [100, -7]]) == [np.float32(8 / 3), 2.0]
    assert model(replace(TRIMMED, byzantine=2), tmp_path, LINE) == [3.0]


def test_krum_by_hand(tmp_path: Path) -> None:
    # n - f - 2 = 2 nearest: 0 has 1 + 9, 1 has 1 + 4, 3 has 1 + 4, 4 has 1 + 9, 100 has 96^2 + 97^2; the first of two
    updates = written(tmp_path, LINE)
    distances = robust.distances_between(updates)
    assert distances[0].tolist() == [0, 1, 9, 16, 10_000]
    assert (distances == distances.T).all()
    assert robust.scores_of(distances, 1).tolist() == [10, 5, 5, 10, 96**2 + 97**2]
    assert made(KRUM, tmp_path, updates, base_of(tmp_path, [0.0])).shares == (0.0, 1.0, 0.0, 0.0, 0.0)
    assert result(tmp_path).tolist() == [1.0]


def test_multi_krum_by_hand(tmp_path: Path) -> None:
    assert model(MULTI, tmp_path, LINE) == [2.0], "all but f: (0 + 1 + 3 + 4) / 4"
    updates = written(tmp_path, LINE, [1000, 1, 1, 1, 1e9])
    shares = made(replace(MULTI, keep=2), tmp_path, updates, base_of(tmp_path, [0.0])).shares
    assert result(tmp_path).tolist() == [2.0], "(1 + 3) / 2: nobody has more of a voice for the rows that it claims"
    assert shares == (0.0, 0.5, 0.5, 0.0, 0.0)


def test_norm_clipping_by_hand(tmp_path: Path) -> None:
    # base 0, bound 5: (3, 4) stays, (30, 40) is cut to (3, 4), (0, -1) stays; a third each, whatever it claims
    updates = written(tmp_path, [[3, 4], [30, 40], [0, -1]], [1, 2**53 - 1, 1])
    plan = Plan(rule="norm-clipping", clip_norm=5.0)
    shares = made(plan, tmp_path, updates, base_of(tmp_path, [0, 0])).shares
    assert result(tmp_path).tolist() == [6 / 3, np.float32(7 / 3)]
    assert shares == pytest.approx((1 / 3, 1 / 30, 1 / 3)), "what is cut off is nobody's"


def test_where_norms_are_clipped_nobody_moves_the_model_further_than_its_share_of_the_bound(tmp_path: Path) -> None:
    """Nine honest devices, and one that claims all the rows that a report can name."""
    updates = written(tmp_path, [[0.5]] * 9 + [[-9.0]], [100] * 9 + [2**53 - 1])
    made(Plan(rule="norm-clipping", clip_norm=1.0), tmp_path, updates, base_of(tmp_path, [0.0]))
    assert result(tmp_path).tolist() == [np.float32((9 * 0.5 - 1) / 10)]


def test_what_is_clipped_is_the_difference_to_the_base(tmp_path: Path) -> None:
    made(Plan(rule="norm-clipping"), tmp_path, written(tmp_path, [[103, 104]]), base_of(tmp_path, [100, 100]))
    np.testing.assert_allclose(result(tmp_path), [100.6, 100.8], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 12), st.integers(1, 2))
def test_agreement_with_numpy_and_scipy(tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, f: int) -> None:
    folder, rng = tmp_path_factory.mktemp("rules"), np.random.default_rng(seed)
    rows = rng.normal(size=(n, 4, 3)).astype("<f4")
    f = min(f, (n - 3) // 2)
    updates, base = written(folder, list(rows)), base_of(folder, np.zeros((4, 3)))
    made(MEDIAN, folder, updates, base)
    assert result(folder).tobytes() == np.median(rows.astype(float), axis=0).astype("<f4").tobytes()
    made(replace(TRIMMED, byzantine=f), folder, updates, base)
    np.testing.assert_allclose(result(folder), stats.trim_mean(rows.astype(float), f / n + 1e-9, axis=0), rtol=1e-6)
    made(replace(KRUM, byzantine=f), folder, updates, base)
    assert result(folder).tobytes() == rows[_krum(rows, f)[0]].tobytes()
    made(replace(MULTI, byzantine=f), folder, updates, base)
    expected = rows[_krum(rows, f)[: n - f]].astype(float).mean(axis=0)
    np.testing.assert_allclose(result(folder), expected, rtol=1e-5, atol=1e-7)


def _krum(rows: np.ndarray, f: int) -> list[int]:
    """Blanchard et al. 2017, section 4, one update after the other: indices, the least score first."""
    scores = []
    for i, mine in enumerate(rows):
        others = [float(((mine.astype(float) - x) ** 2).sum()) for j, x in enumerate(rows) if j != i]
        scores.append(sum(sorted(others)[: len(rows) - f - 2]))
    return sorted(range(len(rows)), key=scores.__getitem__)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(ROBUST), st.sampled_from([1e3, -1e30, 3e38]), st.integers(0, 6))
def test_one_liar_leaves_the_model_among_the_honest(
    tmp_path_factory: pytest.TempPathFactory, seed: int, plan: Plan, lie: float, place: int
) -> None:
    folder, rng = tmp_path_factory.mktemp("liar"), np.random.default_rng(seed)
    honest = rng.normal(size=(6, 5)).astype("<f4")
    rows = np.insert(honest, place, np.full(5, lie), axis=0)
    made(
        plan,
        folder,
        written(folder, list(rows), [1e9 if k == place else 1 for k in range(7)]),
        base_of(folder, [0] * 5),
    )
    found = result(folder)
    assert (found >= honest.min(axis=0)).all()
    assert (found <= honest.max(axis=0)).all()


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)), st.sampled_from(ROBUST))
def test_which_device_sent_what_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], plan: Plan
) -> None:
    folder = tmp_path_factory.mktemp("order")
    rows = np.random.default_rng(4).normal(size=(6, 50)).astype("<f4")
    straight = model(plan, folder, list(rows))
    np.testing.assert_allclose(model(plan, folder, [rows[k] for k in order]), straight, rtol=1e-6)


def test_tensors_larger_than_a_piece_and_several_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robust, "BUDGET", 35)  # 7 numbers of 5 updates at a time
    rng = np.random.default_rng(1)
    files = [
        {"a": rng.normal(size=(3, 6)), "b": rng.normal(size=40).astype("<f4"), "c": np.zeros((0, 2))} for _ in "abcde"
    ]
    for k, arrays in enumerate(files):
        weights.write(tmp_path / f"{k}", arrays)
    weights.write(tmp_path / "base", files[0])
    updates = [Update(tmp_path / f"{k}", 1) for k in range(5)]
    next_model(MEDIAN, updates, tmp_path / "base", tmp_path / "out")
    found = weights.read(tmp_path / "out")
    for name in "ab":
        np.testing.assert_array_equal(
            found[name], np.median([x[name] for x in files], axis=0).astype(found[name].dtype)
        )
    together = np.stack([np.concatenate([x["a"].ravel(), x["b"].astype(float)]) for x in files])
    expected = ((together[:, None] - together[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(robust.distances_between(updates), expected, rtol=1e-12)


def test_counters_are_rounded_and_count_in_no_distance_or_norm(tmp_path: Path) -> None:
    for k, (w, n) in enumerate([(0.0, 10**9), (1.0, 2), (3.0, 3), (4.0, 4), (100.0, 5)]):
        weights.write(tmp_path / f"{k}", {"w": np.array([w]), "n": np.array([n])})
    weights.write(tmp_path / "base", {"w": np.zeros(1), "n": np.zeros(1, int)})
    updates = [Update(tmp_path / f"{k}", 1) for k in range(5)]
    counters = {}
    for plan in (MEDIAN, TRIMMED, KRUM, replace(MULTI, keep=2), Plan(rule="norm-clipping")):
        next_model(plan, updates, tmp_path / "base", tmp_path / "out")
        counters[plan.rule] = weights.read(tmp_path / "out")["n"].tolist()
    assert counters["median"] == counters["trimmed-mean"] == [4]
    assert counters["krum"] == [2]
    assert counters["multi-krum"] == [2], "2.5, halves to even"
    assert counters["norm-clipping"] == [round((10**9 + 14) / 5)]


@pytest.mark.parametrize(
    ("plan", "needed"), [(replace(TRIMMED, byzantine=2), 5), (KRUM, 5), (replace(MULTI, keep=6), 7)]
)
def test_a_rule_refuses_fewer_updates_than_it_needs(tmp_path: Path, plan: Plan, needed: int) -> None:
    updates = written(tmp_path, [[float(k)] for k in range(needed)])
    base = base_of(tmp_path, [0.0])
    made(plan, tmp_path, updates, base)
    with pytest.raises(RuleError, match=f"needs {needed} updates, and {needed - 1} have weights"):
        made(plan, tmp_path, updates[1:], base)


@pytest.mark.parametrize("plan", [MEDIAN, TRIMMED, MULTI], ids=lambda plan: plan.rule)
def test_memory_does_not_grow_with_the_number_of_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    monkeypatch.setattr(robust, "BUDGET", 2 * PIECE)
    updates, base = written(tmp_path, [np.ones(PIECE, "<f4")] * 24), base_of(tmp_path, np.ones(PIECE))
    _peak(plan, tmp_path, updates[:6], base)  # what is loaded once
    assert _peak(plan, tmp_path, updates, base) < 1.25 * _peak(plan, tmp_path, updates[:6], base)


def _peak(plan: Plan, folder: Path, updates: list[Update], base: Path) -> int:
    tracemalloc.start()
    try:
        made(plan, folder, updates, base)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
