"""Rows over clients by the value of a column: by site, by agent, by year. Pure but for the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_client.data.document import MISSING, Column
from edge_client.data.features import Array, Features
from edge_client.data.partition import MINIMUM_ROWS, Rows, enough
from edge_client.data.words import some
from floe.errors import DataError

MAX_GROUPS = 32  # so many different numbers are values, more are measured: ranges of them are kept together


@dataclass(frozen=True)
class Values:
    """The values of one column: training row i has the value called `names[train[i]]`, test rows alike.

    Numbers ascend, so that `ranges` of them can be taken; missing comes last.
    """

    column: str
    names: tuple[str, ...]
    train: Rows
    test: Rows
    ranges: bool


def values(features: Features, columns: Sequence[Column], by: str) -> Values:
    """What the rows have in the column `by`: one of `columns` (of the CSV it was), or a feature by its name.

    Raises `DataError` that lists the columns when there is none of that name.
    """
    known = columns or [Column(name=name, kind="numeric") for name in features.schema.features]
    place, found = 0, None
    for column in known:
        if column.name == by:
            found = column
            break
        place += len(column.features())
    if found is None:
        there = f"there are: {some([column.name for column in known], 40)}" if known else "the data names no columns"
        raise DataError(f"--by {by}: no such column; {there}")
    rows = np.concatenate([features.train_x, features.test_x])[:, place : place + len(found.features())]
    return _of(rows, found, len(features.train_x))


def _of(rows: Array, column: Column, train: int) -> Values:
    if column.kind == "categorical":
        names = tuple(name.removeprefix(f"{column.name}=") for name in column.features())
        ids = rows.argmax(axis=1)
    else:
        numbers = np.where(rows[:, 1] > 0, np.inf, rows[:, 0]) if column.missing else rows[:, 0]
        distinct, ids = np.unique(numbers, return_inverse=True)
        names = tuple(MISSING if np.isinf(value) else f"{value:.7g}" for value in distinct)
    ranges = column.kind == "numeric" and len(names) > MAX_GROUPS
    return Values(column.name, names, ids[:train].astype(np.int64), ids[train:].astype(np.int64), ranges)


def owners(found: Values, clients: int, seed: int) -> Rows:
    """For each value the number of the client that has all its rows.

    Single values are dealt from the most frequent on, ties by the seed, each to the client that has fewest rows
    (Graham 1969, longest first); which of the clients is which is the seed's. Ranges ascend with the clients, cut
    where their training rows are as equal as whole values allow.
    Raises `DataError` when there are fewer values among the training rows than clients.
    """
    counts = np.bincount(found.train, minlength=len(found.names))
    present = int(np.count_nonzero(counts))
    if present < clients:
        raise DataError(
            f"--by {found.column}: {present} different values for {clients} clients: take {present} clients or fewer, "
            "or another column"
        )
    return _ranges(counts, clients) if found.ranges else _dealt(counts, clients, np.random.default_rng(seed))


def _ranges(counts: Rows, clients: int) -> Rows:
    middles = np.cumsum(counts) - counts / 2
    cuts: Rows = np.minimum(middles * clients / counts.sum(), clients - 1).astype(np.int64)
    return cuts


def _dealt(counts: Rows, clients: int, rng: np.random.Generator) -> Rows:
    shuffled = rng.permutation(len(counts))
    held, owner = np.zeros(clients, np.int64), np.zeros(len(counts), np.int64)
    for value in shuffled[np.argsort(-counts[shuffled], kind="stable")]:
        owner[value] = np.argmin(held)
        held[owner[value]] += counts[value]
    renamed: Rows = rng.permutation(clients)[owner]
    return renamed


def parts(found: Values, clients: int, seed: int, minimum: int = MINIMUM_ROWS) -> tuple[list[Rows], list[Rows]]:
    """Training and test rows of each client: those that have its values. Raises `DataError`, also for too few rows."""
    owner = owners(found, clients, seed)
    train, test = ([np.flatnonzero(owner[ids] == k) for k in range(clients)] for ids in (found.train, found.test))
    how = f"by {found.column}"
    return enough(train, how, minimum), enough(test, f"{how}, test rows", 1)


def held(found: Values, rows: Rows) -> str:
    """The values of a client's training rows, in words; of ranges the first and the last."""
    names = [found.names[i] for i in np.unique(found.train[rows])]
    return f"{names[0]} to {names[-1]}" if found.ranges else some(names)
