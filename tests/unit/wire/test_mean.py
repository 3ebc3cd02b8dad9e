"""FedAvg: the same bits as numpy's weighted mean, in flat memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floe import weights
from floe.mean import PIECE, Update, weighted_mean


def _write(folder: Path, arrays: list[np.ndarray], shares: list[float]) -> list[Update]:
    updates = []
    for number, (array, share) in enumerate(zip(arrays, shares, strict=True)):
        weights.write(folder / f"{number:03}", {"w": array})
        updates.append(Update(folder / f"{number:03}", share))
    return updates


def _mean(folder: Path, updates: list[Update]) -> np.ndarray:
    weighted_mean(updates, folder / "mean")
    return weights.read(folder / "mean")["w"]


def test_two_devices_by_hand(tmp_path: Path) -> None:
    # (1 * [1, 2] + 3 * [5, -2]) / 4 = [16/4, -4/4]
    arrays = [np.array([1, 2], "<f4"), np.array([5, -2], "<f4")]
    assert _mean(tmp_path, _write(tmp_path, arrays, [1, 3])).tolist() == [4.0, -1.0]


def test_one_device_gives_its_own_weights(tmp_path: Path) -> None:
    array = np.array([0.1, 1e30, -1e-30], "<f4")
    assert _mean(tmp_path, _write(tmp_path, [array], [7])).tobytes() == array.tobytes()


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 12),
    st.sampled_from(["<f2", "<f4"]),
)
def test_the_mean_is_numpys_average_in_float64_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, devices: int, dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("mean")
    rng = np.random.default_rng(seed)
    arrays = [(rng.normal(size=(5, 7)) * 10.0 ** rng.integers(-3, 3)).astype(dtype) for _ in range(devices)]
    shares = rng.integers(1, 10_000, devices).astype(float).tolist()
    expected = np.average(np.stack(arrays).astype(np.float64), axis=0, weights=shares).astype(dtype)
    assert _mean(folder, _write(folder, arrays, shares)).tobytes() == expected.tobytes()


def test_the_mean_does_not_depend_on_the_order_in_which_updates_arrived(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=1000).astype("<f4") for _ in range(9)]
    updates = _write(tmp_path, arrays, [float(n) for n in rng.integers(1, 5000, 9)])
    expected = _mean(tmp_path, updates).tobytes()
    for _ in range(5):
        arrived = [updates[i] for i in rng.permutation(9)]
        assert _mean(tmp_path, sorted(arrived, key=lambda update: update.path.name)).tobytes() == expected


def test_tensors_larger_than_a_piece_are_averaged_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    arrays = [rng.normal(size=2 * PIECE + 3).astype("<f4") for _ in range(2)]
    expected = np.average(np.stack(arrays).astype(np.float64), axis=0, weights=[2, 5]).astype("<f4")
    assert _mean(tmp_path, _write(tmp_path, arrays, [2, 5])).tobytes() == expected.tobytes()


def test_integers_are_rounded_to_the_nearest_and_halves_to_even(tmp_path: Path) -> None:
    arrays = [np.array([1, 2, 10], "<i8"), np.array([2, 3, 13], "<i8")]
    assert _mean(tmp_path, _write(tmp_path, arrays, [1, 1])).tolist() == [2, 2, 12]


def test_a_device_of_weight_zero_does_not_count(tmp_path: Path) -> None:
    arrays = [np.array([1.0], "<f4"), np.array([100.0], "<f4")]
    assert _mean(tmp_path, _write(tmp_path, arrays, [2, 0])).tolist() == [1.0]


def test_scalars_and_empty_tensors_keep_their_shape(tmp_path: Path) -> None:
    for number in (1, 3):
        weights.write(tmp_path / str(number), {"e": np.zeros((0, 2), "<f4"), "s": np.array(number, "<f8")})
    weighted_mean([Update(tmp_path / "1", 1), Update(tmp_path / "3", 1)], tmp_path / "mean", {"k": "v"})
    found = weights.read(tmp_path / "mean")
    assert (found["e"].shape, found["s"].shape, float(found["s"])) == ((0, 2), (), 2.0)
    assert dict(weights.read_layout_of(tmp_path / "mean").metadata) == {"k": "v"}


@pytest.mark.parametrize("shares", [[0, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_that_give_no_mean_are_refused_and_nothing_is_written(tmp_path: Path, shares: list[float]) -> None:
    updates = _write(tmp_path, [np.zeros(1, "<f4")] * 2, shares)
    with pytest.raises(ValueError, match="weights must be finite, not negative, and not all zero"):
        weighted_mean(updates, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_no_updates_give_no_mean(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not all zero"):
        weighted_mean([], tmp_path / "mean")


def test_updates_of_another_shape_are_refused(tmp_path: Path) -> None:
    updates = _write(tmp_path, [np.zeros(1, "<f4"), np.zeros(2, "<f4")], [1, 1])
    with pytest.raises(ValueError, match=r"001: tensor 'w' has shape \(2,\), expected \(1,\)"):
        weighted_mean(updates, tmp_path / "mean")


def test_memory_does_not_grow_with_the_number_of_updates(tmp_path: Path) -> None:
    array = np.ones(4 * PIECE, "<f4")
    updates = _write(tmp_path, [array] * 20, [1.0] * 20)
    _peak(updates[:3], tmp_path)  # what is loaded once
    assert _peak(updates, tmp_path) < 1.05 * _peak(updates[:3], tmp_path)


def _peak(updates: list[Update], folder: Path) -> int:
    tracemalloc.start()
    try:
        weighted_mean(updates, folder / "mean")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
