"""Rows over clients: nothing twice, nothing lost, the same for the same seed, and as uneven as the papers say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.data.partition import WAYS, apportion, follow, partition, sample, stratified, with_normal_rows
from floe.errors import DataError

ALL = st.sampled_from(list(WAYS))


@given(st.lists(st.integers(0, 5), min_size=60, max_size=200), st.integers(1, 5), ALL, st.integers(0, 99))
def test_every_row_goes_to_exactly_one_client(labels: list[int], clients: int, how: str, seed: int) -> None:
    y = np.array(labels)
    parts = partition(y, clients, how, 0.3, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(y)))
    assert min(map(len, parts)) >= 10
    again = partition(y, clients, how, 0.3, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("how", list(WAYS))
def test_another_seed_is_another_partition(how: str) -> None:
    y = np.arange(100) % 4
    parts = [partition(y, 4, how, 0.5, seed) for seed in (1, 2)]
    assert any(not np.array_equal(a, b) for a, b in zip(*parts, strict=True))


def test_shards_give_a_client_at_most_two_classes() -> None:
    y = np.repeat(np.arange(10), 40)[np.random.default_rng(0).permutation(400)]
    parts = partition(y, 10, "shards", 1.0, 3)
    assert [len(part) for part in parts] == [40] * 10
    assert max(len(np.unique(y[part])) for part in parts) == 2


def test_a_small_alpha_is_uneven_and_a_large_one_is_not() -> None:
    y = np.repeat(np.arange(5), 200)
    for alpha, low, high in ((0.05, 0.8, 1.0), (1e5, 0.0, 0.3)):
        parts = partition(y, 5, "dirichlet", alpha, 0)
        shares = [np.bincount(y[part], minlength=5) / 200 for part in parts]  # of every class, what a client has
        largest = np.mean(np.max(shares, axis=0))
        assert low <= largest <= high


def test_dirichlet_fills_a_client_that_would_have_too_few_rows() -> None:
    sizes = [len(part) for part in partition(np.zeros(100, np.int64), 5, "dirichlet", 0.01, 0)]
    assert sorted(sizes) == [10, 10, 10, 10, 60]


def test_quantity_keeps_the_mixture_and_varies_the_size() -> None:
    y = np.repeat([0, 1], [6000, 2000])
    parts = partition(y, 5, "quantity", 0.5, 0)
    sizes = [len(part) for part in parts]
    assert max(sizes) > 3 * min(sizes)
    for part in parts:
        assert abs(y[part].mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / len(part))  # five standard errors
    even = [len(part) for part in partition(y, 5, "quantity", 1e6, 0)]
    assert max(even) - min(even) < 20


def test_the_sizes_of_quantity_are_the_draw_of_dirichlet() -> None:
    draw = np.random.default_rng(7).dirichlet([1.0] * 4)
    sizes = [len(part) for part in partition(np.zeros(1000, np.int64), 4, "quantity", 1.0, 7)]
    assert sizes == apportion(1000, draw).tolist()


def test_quantity_fills_a_client_that_would_have_too_few_rows() -> None:
    sizes = [len(part) for part in partition(np.arange(100) % 3, 5, "quantity", 0.01, 0)]
    assert sorted(sizes) == [10, 10, 10, 10, 60]


def test_a_client_with_too_few_rows_is_an_error_that_says_how_few() -> None:
    with pytest.raises(DataError, match=r"19 rows over 2 clients .* leave one with 9, at least 10"):
        partition(np.zeros(19, np.int64), 2, "iid", 1.0, 0)
    assert len(partition(np.zeros(20, np.int64), 2, "iid", 1.0, 0)) == 2


@pytest.mark.parametrize(
    ("clients", "how", "alpha"),
    [(0, "iid", 1.0), (2, "dirichlet", 0.0), (2, "random", 1.0), (2, "quantity", 0.0), (2, "column", 1.0)],
)
def test_impossible_partitions_are_refused(clients: int, how: str, alpha: float) -> None:
    with pytest.raises(DataError):
        partition(np.arange(100) % 2, clients, how, alpha, 0)


def test_every_client_gets_normal_rows_and_keeps_its_size() -> None:
    y = np.array([0] * 30 + [1] * 30)
    parts = [np.arange(20), np.arange(20, 40), np.arange(40, 60)]
    fixed = with_normal_rows(parts, y, seed=0, minimum=8)
    assert [int((y[part] == 0).sum()) for part in fixed] == [12, 10, 8]
    assert [len(part) for part in fixed] == [20, 20, 20]
    assert sorted(np.concatenate(fixed).tolist()) == list(range(60))


def test_too_few_normal_rows_are_shared_as_far_as_they_go() -> None:
    y = np.array([0] * 5 + [1] * 25)
    fixed = with_normal_rows([np.arange(15), np.arange(15, 30)], y, seed=0)
    assert [int((y[part] == 0).sum()) for part in fixed] == [3, 2]


def test_test_rows_have_the_mixture_of_the_training_rows() -> None:
    train = np.repeat([0, 1, 2], [60, 60, 60])
    parts = [np.r_[0:60, 60:75], np.r_[75:120, 120:180]]
    tests = follow(np.repeat([0, 1, 2], [20, 20, 20]), train, parts, 0)
    assert [np.bincount(np.repeat([0, 1, 2], 20)[part], minlength=3).tolist() for part in tests] == [
        [20, 5, 0],
        [0, 15, 20],
    ]


def test_of_two_classes_every_client_can_measure_both() -> None:
    train = np.repeat([0, 1], [40, 10])
    parts = [np.arange(25), np.arange(25, 50)]  # all anomalies with the second
    test = np.repeat([0, 1], [10, 4])
    assert [np.bincount(test[part]).tolist() for part in follow(test, train, parts, 0)] == [[6, 1], [4, 3]]


def test_attacks_that_nobody_trains_on_are_spread_evenly() -> None:
    test = np.repeat([0, 1], [6, 9])
    tests = follow(test, np.zeros(30, np.int64), [np.arange(10), np.arange(10, 20), np.arange(20, 30)], 0)
    assert [np.bincount(test[part]).tolist() for part in tests] == [[2, 3]] * 3


@given(st.lists(st.integers(0, 4), min_size=6, max_size=60), st.integers(1, 6), ALL)
def test_every_client_has_test_rows_and_none_twice(labels: list[int], clients: int, how: str) -> None:
    train, test = np.arange(80) % 5, np.array(labels)
    tests = follow(test, train, partition(train, clients, how, 0.1, 0), 0)
    assert sorted(np.concatenate(tests).tolist()) == list(range(len(test)))
    assert min(map(len, tests)) >= 1


def test_fewer_test_rows_than_clients_is_an_error() -> None:
    with pytest.raises(DataError, match="1 test rows for 2 clients"):
        follow(np.zeros(1, np.int64), np.zeros(4, np.int64), [np.arange(2), np.arange(2, 4)], 0)


def test_largest_remainder_by_hand() -> None:
    assert apportion(10, np.array([1.0, 1.0, 1.0])).tolist() == [4, 3, 3]
    assert apportion(3, np.array([5.0, 3.0, 2.0])).tolist() == [1, 1, 1]
    assert apportion(2, np.array([0.0, 0.0])).tolist() == [1, 1]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.05, 0.95), st.integers(0, 9))
def test_a_stratified_split_keeps_every_class_on_both_sides(labels: list[int], share: float, seed: int) -> None:
    y = np.array(labels)
    train, test = stratified(y, share, seed)
    assert sorted([*train, *test]) == list(range(len(y)))
    for label, count in zip(*np.unique(y, return_counts=True), strict=True):
        assert (y[train] == label).sum() >= 1
        assert (y[test] == label).sum() == min(max(round(share * count), 1), count - 1)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="test share"):
        stratified(np.arange(10) % 2, share, 0)


def test_a_sample_keeps_the_proportions() -> None:
    y = np.repeat([0, 1, 2], [60, 30, 10])
    assert np.bincount(y[sample(y, 10, 0)]).tolist() == [6, 3, 1]
    assert sample(y, 1000, 0).tolist() == list(range(100))
