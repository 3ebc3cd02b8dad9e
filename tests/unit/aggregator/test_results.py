"""What a phase makes of its updates, with numbers worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aggregator.results import Spooled, check_initial, combine_sums, first_model, global_model, merged_at_once
from floe import weights
from floe.errors import DataError
from floe.plan import Plan
from floe.schema import Schema

SCHEMA = Schema(shape=(2,), classes=2, features=("a", "b"))


def spool_sums(folder: Path, name: str, rows: np.ndarray) -> Spooled:
    path = folder / f"{name}.safetensors"
    mean = rows.mean(axis=0)
    weights.write(
        path,
        {"sums.count": np.array([len(rows)]), "sums.mean": mean, "sums.m2": ((rows - mean) ** 2).sum(axis=0)},
    )
    return Spooled(name, path, 0)


def test_sums_of_two_devices_worked_by_hand(tmp_path: Path) -> None:
    # a: 0, 2 and 4 -> mean 2, variance 8/3; b is constant
    spooled = [
        spool_sums(tmp_path, "x", np.array([[0.0, 7.0], [2.0, 7.0]])),
        spool_sums(tmp_path, "y", np.array([[4.0, 7.0]])),
    ]
    combine_sums(spooled, tmp_path / "out")
    out = weights.read(tmp_path / "out")
    np.testing.assert_allclose(out["scaling.mean"], [2.0, 7.0])
    np.testing.assert_allclose(out["scaling.scale"], [np.sqrt(8 / 3), 1.0])


@settings(max_examples=50)
@given(
    arrays.arrays(np.float64, (12, 2), elements=st.floats(-1e3, 1e3)), st.integers(1, 11), st.sampled_from([0.0, 1.5e9])
)
def test_sums_of_a_split_are_the_sums_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, cut: int, offset: float
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    rows = rows + offset  # epoch times: raw sums of squares would lose every digit
    combine_sums([spool_sums(folder, "x", rows[:cut]), spool_sums(folder, "y", rows[cut:])], folder / "out")
    out = weights.read(folder / "out")
    np.testing.assert_allclose(out["scaling.mean"], rows.mean(axis=0), rtol=1e-12, atol=1e-9)
    deviation = rows.std(axis=0)
    varies = deviation > 1e-2
    np.testing.assert_allclose(out["scaling.scale"][varies], deviation[varies], rtol=1e-4)


def test_the_federated_mean_keeps_the_scaling_of_the_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    scaling = {"scaling.mean": np.array([1.0, 2.0]), "scaling.scale": np.array([3.0, 4.0])}
    weights.write(base, {"w": np.zeros(2, np.float32), **scaling}, {"schema": SCHEMA.to_json()})
    for name, value in (("a", [1.0, 0.0]), ("b", [4.0, 3.0])):
        weights.write(tmp_path / name, {"w": np.array(value, np.float32)})
    spooled = [Spooled("a", tmp_path / "a", 2), Spooled("b", tmp_path / "b", 1)]
    global_model(Plan(), spooled, base, tmp_path / "out")
    out = weights.read(tmp_path / "out")
    assert out["w"].tolist() == [2.0, 1.0]  # (2 * 1 + 4) / 3, (2 * 0 + 3) / 3
    assert out["scaling.scale"].tolist() == [3.0, 4.0]
    assert weights.read_layout_of(tmp_path / "out").metadata["schema"] == SCHEMA.to_json()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_round_without_weights_keeps_the_model(tmp_path: Path) -> None:
    base = tmp_path / "base"
    weights.write(base, {"w": np.ones(2, np.float32)}, {"schema": SCHEMA.to_json()})
    global_model(Plan(), [], base, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == base.read_bytes()


def test_the_first_model_has_weights_scaling_and_schema(tmp_path: Path) -> None:
    weights.write(tmp_path / "initial", {"w": np.ones(2, np.float32)})
    weights.write(tmp_path / "scaling", {"scaling.mean": np.zeros(2), "scaling.scale": np.ones(2)})
    first_model(tmp_path / "initial", tmp_path / "scaling", SCHEMA, tmp_path / "out")
    layout = check_initial(tmp_path / "out", Plan())
    assert [t.name for t in layout.tensors] == ["scaling.mean", "scaling.scale", "w"]


def test_where_each_device_has_a_schema_of_its_own_the_first_model_has_none(tmp_path: Path) -> None:
    weights.write(tmp_path / "initial", {"w": np.ones(2, np.float32)}, {"schema": SCHEMA.to_json()})
    first_model(tmp_path / "initial", None, None, tmp_path / "out")
    assert check_initial(tmp_path / "out", Plan(schema="own", personal=("v",))).metadata == {}


def test_an_initial_model_with_a_personal_tensor_is_refused(tmp_path: Path) -> None:
    weights.write(tmp_path / "m.safetensors", {"w": np.ones(2, np.float32)}, {"schema": SCHEMA.to_json()})
    with pytest.raises(DataError, match=r"cannot be the initial model: weights: w is personal by the plan"):
        check_initial(tmp_path / "m.safetensors", Plan(personal=("w",)))


def test_the_scaling_of_an_initial_model_is_never_personal(tmp_path: Path) -> None:
    scaling = {f"scaling.{name}": np.ones(2) for name in ("mean", "scale")}
    weights.write(tmp_path / "m", {"w": np.ones(2, np.float32), **scaling}, {"schema": SCHEMA.to_json()})
    assert len(check_initial(tmp_path / "m", Plan(personal=("*mean",))).tensors) == 3


def test_an_initial_model_without_a_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    weights.write(tmp_path / "m.safetensors", {"w": np.ones(2, np.float32)})
    with pytest.raises(DataError, match=r"m\.safetensors: cannot be the initial model.*floe models export"):
        check_initial(tmp_path / "m.safetensors", Plan())
    with pytest.raises(DataError, match="cannot be the initial model"):
        check_initial(tmp_path / "absent.safetensors", Plan())


def model_of(folder: Path, name: str, *values: float, **others: np.ndarray) -> Path:
    weights.write(folder / name, {"w": np.array(values, np.float32), **others}, {"schema": SCHEMA.to_json()})
    return folder / name


def test_a_late_update_moves_the_base_by_what_it_learned_times_its_discount(tmp_path: Path) -> None:
    """FedBuff, by hand: base 10, fresh 16 with one row; late 5 from 1, three rounds behind: 10 + (5 - 1) / 2 = 12."""
    scaling = {"scaling.mean": np.array([1.0]), "scaling.scale": np.array([2.0])}
    base, old = model_of(tmp_path, "base", 10.0, **scaling), model_of(tmp_path, "old", 1.0, **scaling)
    fresh, late = model_of(tmp_path, "fresh", 16.0), model_of(tmp_path, "late", 5.0)
    spooled = [Spooled("a", late, 3, behind=3, base=old), Spooled("a", fresh, 1)]
    global_model(Plan(), spooled, base, tmp_path / "out", power=0.5)
    out = weights.read(tmp_path / "out")
    assert out["w"].tolist() == [(3 * 12 + 1 * 16) / 4]
    assert out["scaling.scale"].tolist() == [2.0]
    assert {path.name for path in tmp_path.iterdir()} == {"base", "old", "fresh", "late", "out"}


def test_an_update_that_is_not_late_is_taken_as_it_is_to_the_last_bit(tmp_path: Path) -> None:
    base, fresh = model_of(tmp_path, "base", 1e8), model_of(tmp_path, "fresh", 1e-8)
    global_model(Plan(), [Spooled("a", fresh, 1)], base, tmp_path / "out")
    assert weights.read(tmp_path / "out")["w"].tolist() == weights.read(fresh)["w"].tolist()


def test_asynchronous_updates_are_mixed_in_one_after_the_other(tmp_path: Path) -> None:
    """FedAsync, by hand: base 8; first 16 with half a share: 12; then 0, three rounds behind, a quarter: 9."""
    scaling = {"scaling.mean": np.array([1.0]), "scaling.scale": np.array([2.0])}
    base, old = model_of(tmp_path, "base", 8.0, **scaling), model_of(tmp_path, "old", 1.0, **scaling)
    spooled = [
        Spooled("b", model_of(tmp_path, "b", 16.0), 1),
        Spooled("a", model_of(tmp_path, "a", 0.0), 100, behind=3, base=old),
    ]
    merged_at_once(spooled, base, tmp_path / "out", mixing=0.5, power=0.5)
    out = weights.read(tmp_path / "out")
    assert out["w"].tolist() == [9.0]
    assert out["scaling.mean"].tolist() == [1.0]
    assert {path.name for path in tmp_path.iterdir()} == {"base", "old", "a", "b", "out"}
    merged_at_once([], base, tmp_path / "same", mixing=0.5, power=0.5)
    assert (tmp_path / "same").read_bytes() == base.read_bytes()


def test_integers_of_late_updates_are_rounded(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("base", "old", "late")}
    for value, path in zip((10, 0, 3), files.values(), strict=True):
        weights.write(path, {"n": np.array([value])}, {"schema": SCHEMA.to_json()})
    global_model(Plan(), [Spooled("a", files["late"], 1, 3, files["old"])], files["base"], tmp_path / "out", 0.5)
    assert weights.read(tmp_path / "out")["n"].tolist() == [12]  # 10 + 3 / 2 = 11.5, halves to even


def test_a_rule_that_counts_updates_takes_one_of_each_device_the_newest(tmp_path: Path) -> None:
    """A liar with two late updates and a fresh one has one voice of three."""
    base = model_of(tmp_path, "base", 0.0)
    lies = [model_of(tmp_path, f"lie{n}", 1000.0 + n) for n in range(3)]
    spooled = [
        *(Spooled("a", lies[n], 1, behind=2 - n, base=base if n < 2 else None, transfer=f"a{n}") for n in range(3)),
        Spooled("b", model_of(tmp_path, "b", 1.0), 1, transfer="b"),
        Spooled("c", model_of(tmp_path, "c", 2.0), 1, transfer="c"),
    ]
    made = global_model(Plan(rule="median"), spooled, base, tmp_path / "out")
    assert weights.read(tmp_path / "out")["w"].tolist() == [2.0]
    assert made.shares == {}, "no update has a share of a median"
    clipped = global_model(Plan(rule="norm-clipping", clip_norm=2.0), spooled, base, tmp_path / "out")
    assert weights.read(tmp_path / "out")["w"].tolist() == [pytest.approx((2 + 1 + 2) / 3)]
    assert clipped.shares == pytest.approx({"a0": 0, "a1": 0, "a2": 2 / 1002 / 3, "b": 1 / 3, "c": 1 / 3})


def test_a_late_update_passes_through_every_rule_rebased(tmp_path: Path) -> None:
    """By hand: base 10; the late one learned 4 three rounds ago, now 2: it is 12, and 10 and 13 are fresh."""
    base, old = model_of(tmp_path, "base", 10.0), model_of(tmp_path, "old", 1.0)
    spooled = [
        Spooled("a", model_of(tmp_path, "late", 5.0), 1, behind=3, base=old, transfer="a"),
        Spooled("b", model_of(tmp_path, "b", 10.0), 1, transfer="b"),
        Spooled("c", model_of(tmp_path, "c", 13.0), 1, transfer="c"),
    ]
    found, krum, shares = {}, [10.0, 12.0, 12.5, 13.0, 99.0], {}
    for plan in (
        Plan(rule="median"),
        Plan(rule="trimmed-mean", byzantine=1),
        Plan(rule="norm-clipping", clip_norm=1.5),
    ):
        shares[plan.rule] = global_model(plan, spooled, base, tmp_path / "out").shares
        found[plan.rule] = weights.read(tmp_path / "out")["w"].tolist()[0]
    assert found == {"median": 12.0, "trimmed-mean": 12.0, "norm-clipping": 11.0}
    more = [
        Spooled(name, model_of(tmp_path, name, value), 1, transfer=name)
        for name, value in zip("de", (12.5, 99), strict=True)
    ]
    made = global_model(Plan(rule="krum", byzantine=1), [*spooled, *more], base, tmp_path / "out")
    distances = {value: sum(sorted((value - x) ** 2 for x in krum)[1:3]) for value in krum}
    assert weights.read(tmp_path / "out")["w"].tolist() == [min(distances, key=distances.__getitem__)] == [12.5]
    assert made.shares == {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0, "e": 0.0}
    optimizer = global_model(
        Plan(rule="fedavgm"), spooled, base, tmp_path / "out", before=None, after=tmp_path / "memory"
    )
    assert weights.read(tmp_path / "out")["w"].tolist() == [np.float32(10 + 5 / 3)]
    assert sum(optimizer.shares.values()) == pytest.approx(1.0)
    assert optimizer.shares["a"] == pytest.approx(optimizer.shares["b"] / 2)
    assert not list(tmp_path.glob("*.rebased"))
