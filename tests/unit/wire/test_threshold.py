"""Thresholds from histograms: the edges, the counts, and how near the quantile comes to that of the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe.threshold import BINS, edge, histogram, merged, quantile

WIDTH = 2 ** (1 / 8) * (1 + 1e-9)
ERRORS = st.lists(st.floats(min_value=2.0**-39, max_value=2.0**23), min_size=1, max_size=200)


def test_the_edges_go_from_2_to_the_minus_40_to_2_to_the_24() -> None:
    assert (edge(0), edge(8), edge(BINS)) == (2.0**-40, 2.0**-39, 2.0**24)


@pytest.mark.parametrize(
    ("error", "place"),
    [(0.0, 0), (1e-300, 0), (2.0**-40, 0), (1.0, 320), (np.nextafter(1.0, 0.0), 319), (1.09, 320), (1.0906, 321),
     (2.0**24, 511), (1e300, 511)],
)  # fmt: skip
def test_an_error_falls_into_the_bin_that_begins_at_or_below_it(error: float, place: int) -> None:
    counts = histogram(np.array([error]))
    assert (sum(counts), counts[place], len(counts)) == (1, 1, BINS)


@given(ERRORS, st.floats(min_value=0.001, max_value=0.999))
def test_the_quantile_is_within_a_bin_of_that_of_the_rows_themselves(errors: list[float], q: float) -> None:
    found, exact = quantile(histogram(np.array(errors)), q), float(np.quantile(errors, q))
    assert exact / WIDTH <= found <= exact * WIDTH


@given(st.lists(ERRORS, min_size=1, max_size=4), st.floats(min_value=0.001, max_value=0.999))
def test_the_devices_histograms_together_are_that_of_all_rows(devices: list[list[float]], q: float) -> None:
    together = merged([histogram(np.array(errors)) for errors in devices])
    assert together == histogram(np.concatenate([np.array(errors) for errors in devices]))


def test_a_quantile_grows_with_q() -> None:
    counts = histogram(np.random.default_rng(3).lognormal(size=1000))
    values = [quantile(counts, q) for q in np.linspace(0.01, 0.99, 50)]
    assert values == sorted(values)


def test_a_histogram_without_rows_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="empty"):
        quantile([0] * BINS, 0.5)
