"""DP-FedAvg: what is cut, the noise and its size, the norm that follows a quantile; the same again, bit for bit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.updates import base_of, result, written

from floe import weights
from floe.errors import RuleError
from floe.mean import PIECE, Update
from floe.noised import Noise, noised_mean, shared

NONE = Noise(1e-12, bytes(32))


def test_differences_are_cut_to_the_norm_and_every_device_counts_the_same(tmp_path: Path) -> None:
    """By hand: (3, 4) has the norm 5 and is cut to (0.6, 0.8); (0.3, 0) stays; claimed rows do not count."""
    base = base_of(tmp_path, [1.0, 1.0])
    updates = written(tmp_path, [[4.0, 5.0], [1.3, 1.0]], [1000.0, 1.0])
    _, norm = noised_mean(updates, base, tmp_path / "out", 1.0, NONE)
    np.testing.assert_allclose(result(tmp_path), [1 + 0.9 / 2, 1 + 0.8 / 2], rtol=1e-6)
    assert norm == 1.0


def test_the_noise_has_the_deviation_of_z_times_the_norm_over_the_number_of_updates(tmp_path: Path) -> None:
    size = PIECE + 50_000  # in two pieces
    base = base_of(tmp_path, np.zeros(size))
    updates = written(tmp_path, [np.zeros(size)] * 4)
    noised_mean(updates, base, tmp_path / "out", 0.5, Noise(3.0, b"k" * 32))
    found = result(tmp_path).astype(np.float64)
    assert found.std() == pytest.approx(3.0 * 0.5 / 4, rel=0.01)
    assert abs(found.mean()) < 5 * 0.375 / math.sqrt(size)
    assert np.abs(np.corrcoef(found[:50_000], found[PIECE:])[0, 1]) < 0.03


def test_the_same_secret_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    base, updates = base_of(tmp_path, np.zeros(3)), written(tmp_path, [[1.0, 2.0, 3.0]] * 3)
    made = [
        noised_mean(updates, base, tmp_path / "out", 1.0, Noise(1.0, secret * 32), 0.5) for secret in (b"a", b"a", b"b")
    ]
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]
    assert made[0][1] != made[2][1]


def test_tensors_of_one_shape_have_noise_of_their_own(tmp_path: Path) -> None:
    for name in ("base", "update"):
        weights.write(tmp_path / name, {"v": np.zeros(9, np.float32), "w": np.zeros(9, np.float32)})
    update = Update(tmp_path / "update", 1.0)
    noised_mean([update], tmp_path / "base", tmp_path / "out", 1.0, Noise(1.0, bytes(32)))
    found = weights.read(tmp_path / "out")
    assert (found["v"] != found["w"]).all()


def test_what_is_no_model_is_not_written(tmp_path: Path) -> None:
    base, updates = base_of(tmp_path, np.zeros(9)), written(tmp_path, [np.zeros(9)] * 2)
    with pytest.raises(RuleError, match=r"DP-FedAvg makes no model: tensor 'w' has -?inf .*lower clip_norm"):
        noised_mean(updates, base, tmp_path / "out", 1e38, Noise(100.0, bytes(32)))
    assert not (tmp_path / "out").exists()


def test_counters_are_the_bases(tmp_path: Path) -> None:
    tensors = {"w": np.zeros(2, np.float32), "seen": np.array([7], np.int64)}
    weights.write(tmp_path / "base", tensors)
    (update,) = written(tmp_path, [[0.0, 0.0]])
    weights.write(update.path, tensors | {"seen": np.array([99], np.int64)})
    noised_mean([update], tmp_path / "base", tmp_path / "out", 1.0, NONE)
    assert weights.read(tmp_path / "out")["seen"].tolist() == [7]


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 1.0), (0.75, math.exp(0.05)), (0.25, math.exp(-0.05))])
def test_the_norm_follows_the_quantile(tmp_path: Path, quantile: float, expected: float) -> None:
    """By hand: two of four norms are at most 1, so b = 1/2, and S goes by exp(-0.2 (1/2 - quantile))."""
    base, updates = base_of(tmp_path, [0.0]), written(tmp_path, [[0.5], [1.0], [2.0], [9.0]])
    _, norm = noised_mean(updates, base, tmp_path / "out", 1.0, _without_counting_noise(), quantile)
    assert norm == pytest.approx(expected, rel=1e-12)


class _Still:
    def standard_normal(self, size: int | None = None) -> object:
        return 0.0 if size is None else np.zeros(size)


def _without_counting_noise() -> Noise:
    class Quiet(Noise):
        def drawn(self, name: str) -> np.random.Generator:
            return _Still()  # type: ignore[return-value]

    return Quiet(1.0, bytes(32))


@pytest.mark.parametrize(("z", "n"), [(1.0, 10), (1.0, 100), (0.5, 1000), (8.0, 10)])
def test_sum_and_count_together_promise_what_a_round_promises(z: float, n: int) -> None:
    """Neighbours: a difference beyond the norm, or zero. The sum moves by the norm, the count by one."""
    sum_, count = shared(z, n)
    assert sum_**-2 + count**-2 == pytest.approx(z**-2)
    assert sum_ <= z * math.sqrt(4 / 3) + 1e-12


def test_many_devices_count_with_the_noise_of_the_paper() -> None:
    assert shared(1.0, 100)[1] == 5.0
