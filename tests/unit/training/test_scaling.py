"""Sums and the scaling that follows from them."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.scaling import BLOCK, Scaling, sums
from floe.errors import DataError
from floe.scaling import scale_of


def test_sums_by_hand() -> None:
    found = sums(np.array([[1, 10], [3, 10], [5, 10]], np.float32))
    assert found["sums.count"].tolist() == [3]
    assert found["sums.mean"].tolist() == [3.0, 10.0]
    assert found["sums.m2"].tolist() == [8.0, 0.0]
    assert {name: array.dtype.name for name, array in found.items()} == {
        "sums.count": "int64",
        "sums.mean": "float64",
        "sums.m2": "float64",
    }


def test_sums_keep_the_shape_of_images_and_cover_every_block() -> None:
    x = np.random.default_rng(0).random((BLOCK + 5, 1, 2, 2)).astype(np.float32)
    found = sums(x)
    np.testing.assert_allclose(found["sums.m2"] / len(x), x.astype(np.float64).var(axis=0), rtol=1e-12)
    assert found["sums.mean"].shape == (1, 2, 2)


def test_epoch_times_do_not_cancel() -> None:
    times = np.array([[1.6e9], [1.6e9 + 128], [1.6e9 + 256]], np.float32)
    assert Scaling.of(sums(times)).scale[0] == pytest.approx(np.sqrt(2 / 3) * 128, rel=1e-12)


def test_a_constant_feature_has_scale_one_in_spite_of_rounding() -> None:
    constant = np.full((1000, 1), 0.1, np.float32)
    assert Scaling.of(sums(constant)).scale.tolist() == [1.0]


def test_the_scale_is_the_deviation_unless_rounding_could_have_made_it() -> None:
    mean, eps = np.array([1.0, 1.0, 0.0, 0.0]), np.finfo(np.float64).eps
    m2 = 4 * np.square([5 * eps, 3 * eps, 1e-100, 0.0])  # four rows: up to 4 epsilon of the mean may be rounding
    assert scale_of(mean, m2, 4).tolist() == pytest.approx([5 * eps, 1.0, 1e-100, 1.0])
    assert scale_of(np.array([-1e300]), np.array([0.0]), 2**53).tolist() == [1.0]


def test_scaled_rows_have_mean_zero_and_deviation_one() -> None:
    x = np.random.default_rng(0).normal(5, 3, (BLOCK + 5, 2)).astype(np.float32)
    scaled = Scaling.of(sums(x)).apply(x)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-5)


def test_a_value_far_out_stays_finite() -> None:
    scaling = Scaling(np.zeros(1), np.full(1, 1e-20))
    assert np.isfinite(scaling.apply(np.array([[1e30], [-1e30]], np.float32))).all()


def test_received_scaling_is_used_as_it_is() -> None:
    scaling = Scaling.received(np.array([1.0]), np.array([2.0]), (1,))
    assert scaling.apply(np.array([[5]], np.float32)).tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("mean", "scale", "message"),
    [
        (None, np.ones(2), "scaling.mean is missing"),
        (np.zeros(2), None, "scaling.scale is missing"),
        (np.zeros(3), np.ones(2), r"scaling.mean is float64\(3,\)"),
        (np.zeros(2), np.ones(2, np.float32), r"scaling.scale is float32\(2,\)"),
        (np.array([0, np.nan]), np.ones(2), "scaling.mean .* NaN"),
        (np.zeros(2), np.array([1.0, 0.0]), "scaling.scale .* has 0.0"),
    ],
)
def test_a_bad_received_scaling_is_named(mean: np.ndarray | None, scale: np.ndarray | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Scaling.received(mean, scale, (2,))
