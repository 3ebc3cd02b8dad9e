"""Rows over clients: IID, by label, by size; and the test rows after the training rows. Pure but for the seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_client.data.features import Labels
from floe.errors import DataError

Rows = npt.NDArray[np.int64]
MINIMUM_ROWS = 10
SHARDS_PER_CLIENT = 2


def partition(
    labels: Labels, clients: int, how: str, alpha: float, seed: int, minimum: int = MINIMUM_ROWS
) -> list[Rows]:
    """Disjoint, complete, ascending row numbers for each client; the same seed gives the same.

    iid: shuffled, equal shares. dirichlet: by label, Dir(alpha) over the clients for every class (Yurochkin et al.
    2019, arXiv 1905.12022); Hsu et al. 2019 draw Dir(alpha * prior) over the classes for every client instead, which
    is far more uneven for the same alpha. shards: McMahan et al. 2017, section 3: sorted by label, two shards for
    each client. quantity: shuffled, of Dir(alpha) of all rows each (Li et al. 2022, arXiv 2102.02079, section 3:
    quantity skew), so that clients differ in size alone. `alpha` counts for dirichlet and quantity only; there a
    client that ends with fewer than `minimum` rows takes the rest from the largest.
    Raises `DataError` when a client would have fewer than `minimum` rows; `by_column` is the way that needs values.
    """
    if how not in WAYS:
        raise DataError(f"partition {how!r}: one of {', '.join(WAYS)}")
    if clients < 1 or not 1e-3 <= alpha <= 1e6:
        raise DataError(f"{clients} clients, alpha {alpha}: at least one client, and alpha from 0.001 to 1000000")
    parts = WAYS[how](labels, clients, alpha, min(minimum, len(labels) // clients), np.random.default_rng(seed))
    return enough(parts, how, minimum)


def enough(parts: Sequence[Rows], how: str, minimum: int = MINIMUM_ROWS) -> list[Rows]:
    """Each part ascending. Raises `DataError` when one has fewer than `minimum` rows."""
    least = min(map(len, parts))
    if least < minimum:
        raise DataError(
            f"{sum(map(len, parts))} rows over {len(parts)} clients ({how}) leave one with {least}, "
            f"at least {minimum} are needed: take fewer clients or more rows"
        )
    return [np.sort(part) for part in parts]


def _iid(labels: Labels, clients: int, alpha: float, minimum: int, rng: np.random.Generator) -> list[Rows]:
    return np.array_split(rng.permutation(len(labels)), clients)


def _shards(labels: Labels, clients: int, alpha: float, minimum: int, rng: np.random.Generator) -> list[Rows]:
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shards = np.array_split(by_label, SHARDS_PER_CLIENT * clients)
    order = rng.permutation(len(shards)).reshape(clients, SHARDS_PER_CLIENT)
    return [np.concatenate([shards[i] for i in own]) for own in order]


def _dirichlet(labels: Labels, clients: int, alpha: float, minimum: int, rng: np.random.Generator) -> list[Rows]:
    """Of every class each client gets a share from Dir(alpha), so that clients differ in classes and in size."""
    given: list[list[Rows]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        counts = apportion(len(rows), rng.dirichlet(np.full(clients, alpha)))
        for own, piece in zip(given, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            own.append(piece)
    parts = [rng.permutation(np.concatenate(own)) for own in given]
    return _filled(parts, minimum)


def _quantity(labels: Labels, clients: int, alpha: float, minimum: int, rng: np.random.Generator) -> list[Rows]:
    sizes = apportion(len(labels), rng.dirichlet(np.full(clients, alpha)))
    return _filled(np.split(rng.permutation(len(labels)), np.cumsum(sizes)[:-1]), minimum)


WAYS: dict[str, Callable[[Labels, int, float, int, np.random.Generator], list[Rows]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
    "quantity": _quantity,
}


def _filled(parts: list[Rows], minimum: int) -> list[Rows]:
    """Every part has at least `minimum` rows; they come from the end of the largest, which stays above it."""
    while len(parts[poor := min(range(len(parts)), key=lambda i: len(parts[i]))]) < minimum:
        rich = max(range(len(parts)), key=lambda i: len(parts[i]))
        count = min(minimum - len(parts[poor]), len(parts[rich]) - minimum)
        parts[poor] = np.concatenate([parts[poor], parts[rich][-count:]])
        parts[rich] = parts[rich][:-count]
    return parts


def with_normal_rows(parts: Sequence[Rows], labels: Labels, seed: int, minimum: int = MINIMUM_ROWS) -> list[Rows]:
    """Two-class data: every client gets `minimum` rows of class 0, or an equal share if there are not so many.

    Rows are exchanged one for one against class 1 of the client that has most of class 0, so sizes stay. Without
    normal rows a device has nothing that an autoencoder could learn from.
    """
    rng = np.random.default_rng(seed)
    normal = [list(rng.permutation(part[labels[part] == 0])) for part in parts]
    others = [list(rng.permutation(part[labels[part] != 0])) for part in parts]
    floor = min(minimum, sum(map(len, normal)) // len(parts), *map(len, parts))
    for poor in range(len(parts)):
        while len(normal[poor]) < floor:
            rich = max(range(len(parts)), key=lambda i: len(normal[i]))
            normal[poor].append(normal[rich].pop())
            others[rich].append(others[poor].pop())
    return [np.sort(np.array(a + b, dtype=np.int64)) for a, b in zip(normal, others, strict=True)]


def follow(test_labels: Labels, train_labels: Labels, parts: Sequence[Rows], seed: int) -> list[Rows]:
    """Test rows for each client: of every class the share that the client has of its training rows.

    So a client is measured on the mixture it learns from. A class without training rows is spread evenly. For data
    of two classes every client first gets one test row of each, if there are enough: without both there is no ROC-AUC.
    Raises `DataError` when there are fewer test rows than clients.
    """
    if len(test_labels) < len(parts):
        raise DataError(f"{len(test_labels)} test rows for {len(parts)} clients: take fewer clients or more rows")
    rng = np.random.default_rng(seed)
    both = max(int(test_labels.max()), int(train_labels.max())) <= 1
    given: list[list[Rows]] = [[] for _ in parts]
    for label in np.unique(test_labels):
        rows = rng.permutation(np.flatnonzero(test_labels == label))
        weights = np.array([np.count_nonzero(train_labels[part] == label) for part in parts], dtype=np.float64)
        first = int(both and len(rows) >= len(parts))
        counts = first + apportion(len(rows) - first * len(parts), weights)
        for own, piece in zip(given, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            own.append(piece)
    return [np.sort(part) for part in _filled([np.concatenate(own) for own in given], 1)]


def apportion(total: int, weights: npt.NDArray[np.float64]) -> Rows:
    """`total` in whole parts proportional to `weights` (largest remainder, ties to the first); zeros count as equal."""
    shares = weights if weights.sum() > 0 else np.ones_like(weights)
    exact = total * shares / shares.sum()
    counts: Rows = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]
    counts[rest] += 1
    return counts


def stratified(labels: Labels, share: float, seed: int) -> tuple[Rows, Rows]:
    """Train and test rows, ascending: `share` of every class to the test, at least one row to each side.

    A class with a single row is trained on. Raises `DataError` unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise DataError(f"test share {share}: more than 0 and less than 1")
    rng = np.random.default_rng(seed)
    train: list[Rows] = []
    test: list[Rows] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        test.append(rows[:count])
        train.append(rows[count:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def sample(labels: Labels, count: int, seed: int) -> Rows:
    """`count` rows, ascending, the classes in the proportions they have; all rows if there are no more."""
    if count >= len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    counts = apportion(count, sizes.astype(np.float64))
    picked = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, counts, strict=True)]
    return np.sort(np.concatenate(picked))
