"""Rows over clients by a column: a value is never torn apart, sizes are near, and what cannot be is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.data.by_column import Values, held, owners, parts, values
from edge_client.data.document import Column
from edge_client.data.features import Features
from edge_client.data.split import split_by
from floe.errors import DataError
from floe.partitions import check
from floe.schema import Schema

SITE = Column(name="site", kind="categorical", categories=("oslo", "rome"), missing=True)
YEAR = Column(name="year", kind="numeric", median=1994.0, missing=True)
COLUMNS = (Column(name="v", kind="numeric"), SITE, YEAR)


def features(columns: tuple[Column, ...], rows: list[list[float]], tests: int) -> Features:
    names = tuple(name for column in columns for name in column.features())
    x, y = np.array(rows, np.float32), np.arange(len(rows)) % 2
    schema = Schema((len(names),), 2, names)
    return Features(x[tests:], y[tests:], x[:tests], y[:tests], schema)


def sites(train: list[str], test: list[str], years: list[float] | None = None) -> Features:
    """v, then site one-hot with other and missing, then year with its indicator (year 0: missing)."""
    every, order = [*test, *train], ("oslo", "rome", "other", "missing")
    rows = [[float(i), *(float(name == site) for name in order)] for i, site in enumerate(every)]
    return features(
        COLUMNS, [[*row, year, float(not year)] for row, year in zip(rows, years or [1.0] * len(rows), strict=True)],
        len(test),
    )  # fmt: skip


def test_a_category_is_read_back_from_its_features() -> None:
    found = values(sites(["rome", "oslo", "missing", "rome"], ["other", "rome"]), COLUMNS, "site")
    assert (found.names, found.ranges) == (("oslo", "rome", "other", "missing"), False)
    assert (found.train.tolist(), found.test.tolist()) == ([1, 0, 3, 1], [2, 1])


def test_few_numbers_are_values_and_missing_is_one_of_its_own() -> None:
    found = values(sites(["rome"] * 4, ["rome"], [1995, 1994, 0, 1996, 1995]), COLUMNS, "year")
    assert (found.names, found.ranges) == (("1994", "1995", "1996", "missing"), False)
    assert (found.train.tolist(), found.test.tolist()) == ([0, 3, 2, 1], [1])


def test_without_columns_a_feature_is_found_by_its_name() -> None:
    found = values(sites(["rome"] * 3, ["oslo"]), (), "site=rome")
    assert (found.names, found.train.tolist(), found.test.tolist()) == (("0", "1"), [1, 1, 1], [0])


def test_an_unknown_column_lists_the_known_and_images_have_none() -> None:
    with pytest.raises(DataError, match="--by town: no such column; there are: v, site, year"):
        values(sites(["rome"] * 3, ["oslo"]), COLUMNS, "town")
    whole = sites(["rome"] * 3, ["oslo"])
    with pytest.raises(DataError, match="--by town: no such column; the data names no columns"):
        values(replace(whole, schema=Schema(whole.schema.shape, 2)), (), "town")


def by(counts: list[int], *, ranges: bool = False) -> Values:
    """Values called 0, 1, ... that so many training rows have, and one test row each."""
    ids = np.repeat(np.arange(len(counts)), counts)
    return Values("c", tuple(map(str, range(len(counts)))), ids, np.arange(len(counts)), ranges)


def test_groups_are_dealt_from_the_largest_on_to_whoever_has_least() -> None:
    owner = owners(by([50, 40, 30, 20, 10]), 2, 0)  # 50 | 40, then 30 to 40, 20 to 50, 10 (70, 70) to the first
    assert owner[0] == owner[3] == owner[4]
    assert owner[1] == owner[2] != owner[0]


def test_ranges_ascend_with_the_clients_and_are_cut_between_values() -> None:
    assert owners(by([1] * 8, ranges=True), 4, 0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert owners(by([6, 1, 1, 4], ranges=True), 2, 0).tolist() == [0, 1, 1, 1]


def test_fewer_values_than_clients_is_an_error_that_says_how_many() -> None:
    with pytest.raises(DataError, match="--by c: 2 different values for 3 clients: take 2 clients or fewer"):
        owners(by([20, 0, 20]), 3, 0)


@given(st.lists(st.integers(0, 30), min_size=4, max_size=40), st.integers(1, 4), st.booleans(), st.integers(0, 9))
def test_every_row_goes_with_its_value_to_one_client(counts: list[int], clients: int, ranges: bool, seed: int) -> None:
    found = by([count + 1 for count in counts], ranges=ranges)
    owner = owners(found, clients, seed)
    assert set(owner.tolist()) <= set(range(clients))
    assert np.array_equal(owner, owners(found, clients, seed))
    if ranges:
        assert np.all(np.diff(owner) >= 0)
        return
    loads = np.bincount(owner, np.bincount(found.train), minlength=clients)
    assert loads.max() - loads.min() <= max(counts) + 1  # the last group that the largest got


def test_train_and_test_rows_of_a_value_are_with_the_same_client() -> None:
    found = by([12, 30, 20])
    train, test = parts(found, 2, 3)
    for own, tested in zip(train, test, strict=True):
        assert set(found.train[own].tolist()) == set(found.test[tested].tolist())
    assert sorted(np.concatenate(train).tolist()) == list(range(62))
    assert sorted(np.concatenate(test).tolist()) == [0, 1, 2]


def test_another_seed_numbers_the_clients_in_another_way() -> None:
    assert len({tuple(owners(by([12, 30, 20]), 3, seed).tolist()) for seed in range(20)}) == 6


def test_a_value_with_too_few_rows_or_without_test_rows_is_refused() -> None:
    with pytest.raises(DataError, match=r"17 rows over 2 clients \(by c\) leave one with 5, at least 10"):
        parts(by([12, 5]), 2, 0)
    untested = replace(by([12, 15]), test=np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"3 rows over 2 clients \(by c, test rows\) leave one with 0"):
        parts(untested, 2, 0)


def test_what_a_client_holds_is_said() -> None:
    assert held(by([1, 1, 2]), np.array([0, 2, 3])) == "0, 2"
    assert held(by([1] * 40, ranges=True), np.arange(5, 25)) == "5 to 24"


def test_a_split_by_site_gives_each_device_its_sites() -> None:
    whole = sites(["oslo"] * 12 + ["rome"] * 15, ["rome", "oslo", "rome"])
    devices, holds = split_by(whole, COLUMNS, 2, "site", 0)
    sizes = [(len(one.train_y), len(one.test_y)) for one in devices]
    assert sorted(zip(holds, sizes, strict=True)) == [("oslo", (12, 1)), ("rome", (15, 2))]


@pytest.mark.parametrize(
    ("how", "alpha", "column", "message"),
    [
        ("iid", 0.5, None, "--alpha 0.5: iid does not use it, dirichlet and quantity do"),
        ("column", 0.5, "site", "--alpha 0.5: column does not use it"),
        ("shards", None, "site", "--by site: shards does not use it"),
        ("column", None, None, "--partition column: by which"),
    ],
)
def test_what_a_partition_does_not_use_is_refused(
    how: str, alpha: float | None, column: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check(how, alpha, column)
