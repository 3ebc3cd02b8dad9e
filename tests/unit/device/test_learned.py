"""What a device learns and does not share: personal layers, schemas of its own, thresholds, its own figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.plain import SECTIONS

from edge_client.data.features import Features
from edge_client.own import Arrays
from edge_client.task import Base, Read, Task, metadata_of
from floe import weights
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema
from floe.settings import Config
from floe.threshold import BINS, histogram, quantile

INNER = {"1.2.weight", "1.2.bias"}
OUTER = {"1.0.weight", "1.0.bias", "1.4.weight", "1.4.bias"}
MLP = Plan(model="mlp", hidden=(8, 4), epochs=2, schema="own", scaling="local", personal=("1.0.*", "1.4.*"))
PLAIN = Plan(model="plain", scaling="none", epochs=2, learning_rate=0.1, personal=("bias",))
CODER = Plan(model="autoencoder", epochs=2, scaling="none", threshold="federated")


def features(inputs: int = 3, *, classes: int = 2, rows: int = 40, seed: int = 1) -> Features:
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    x = (rng.normal(size=(rows, inputs)) + y[:, None]).astype(np.float32)
    names = tuple(f"of {seed}, {n}" for n in range(inputs))
    return Features(x[10:], y[10:], x[:10], y[:10], Schema((inputs,), classes, names))


class Device:
    """A device's work by one plan, with what it keeps in `folder`."""

    def __init__(self, folder: Path, plan: Plan, rows: Features) -> None:
        config = Config(
            trainers=SECTIONS["trainers"], models={"normed": "own:normed"}, folder=folder, file=folder / "floe.toml"
        )
        self.folder, self.plan, self.rows = folder, plan, rows
        self.kept: dict[str, Any] = {}
        self.lineage = "main"
        self._task = Task(config, "ann", rows, folder / "local", lambda arrays, *_: self.kept.update(arrays))

    def do(
        self, number: int, task: str, base: Arrays | None = None, threshold: float | None = None
    ) -> tuple[Arrays, Report]:
        phase = msgspec.convert({"lineage": self.lineage, "epoch": 1, "round": number, "task": task}, Phase)
        schema = self.rows.schema if self.plan.schema == "shared" else None
        read: Read | None = None if base is None else lambda: Base(base, schema)
        file, report = self._task.do(phase, self.plan, read, lambda: False, threshold)
        return (weights.read(io.BytesIO(b"".join(file))) if file else {}), report

    def again(self) -> Device:
        """After a restart, or with another plan."""
        return Device(self.folder, self.plan, self.rows)


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_first_model_and_an_update_have_no_personal_tensor(tmp_path: Path) -> None:
    device = Device(tmp_path, PLAIN, features())
    initial, _ = device.do(0, "init")
    assert initial.keys() == {"weight"}
    update, report = device.do(1, "train", initial)
    assert (update.keys(), report.failure) == ({"weight"}, "")
    assert device.kept.keys() == {"weight", "bias"}


def test_devices_with_other_schemas_share_the_inner_layers_alone(tmp_path: Path) -> None:
    insurance = Device(tmp_path / "insurance", MLP, features(12, seed=2))
    bank = Device(tmp_path / "bank", MLP, features(5, seed=3))
    initial, _ = insurance.do(0, "init")
    assert initial.keys() == INNER
    for device in (insurance, bank):
        update, report = device.do(1, "train", initial)
        assert report.failure == ""
        assert {name: array.shape for name, array in update.items()} == {n: a.shape for n, a in initial.items()}
        assert device.kept.keys() == INNER | OUTER
        assert metadata_of(device.rows, MLP) == {}
    assert insurance.kept["1.0.weight"].shape == (8, 12)
    assert bank.kept["1.0.weight"].shape == (8, 5)


def test_the_next_round_begins_with_the_personal_layers_of_the_last_one_and_the_shared_ones_of_the_base(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path, PLAIN, features())
    initial, _ = device.do(0, "init")
    device.do(1, "train", initial)
    bias, base = device.kept["bias"], {"weight": np.ones((3, 2), np.float32)}
    device.do(1, "evaluate", base)
    assert same(device.kept, {"weight": base["weight"], "bias": bias})
    assert bias.any()


def test_a_phase_done_again_after_a_kill_gives_the_same_update_and_the_same_personal_layers(tmp_path: Path) -> None:
    device = Device(tmp_path, PLAIN, features())
    base, _ = device.do(0, "init")
    base, _ = device.do(1, "train", base)
    once, kept = device.do(2, "train", base)[0], dict(device.kept)
    killed = device.again()
    assert same(killed.do(2, "train", base)[0], once)
    assert same(killed.kept, kept)


def test_personal_layers_of_another_model_are_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device(tmp_path, PLAIN, features())
    base, _ = device.do(0, "init")
    device.do(1, "train", base)
    other = Device(tmp_path, msgspec.structs.replace(PLAIN, hidden=(1,), personal=("ballast", "bias")), features())
    _, report = other.do(2, "train", base)
    assert report.failure == ""
    assert "they begin anew" in capsys.readouterr().err


def test_what_was_learned_in_another_lineage_does_not_count(tmp_path: Path) -> None:
    device = Device(tmp_path, PLAIN, features())
    base, _ = device.do(0, "init")
    device.do(7, "train", base)
    fresh = Device(tmp_path / "fresh", PLAIN, features())
    for one in (device, fresh):
        one.lineage = "new"
        assert one.do(12, "evaluate", base)[1].after is None
    assert same(device.do(12, "train", base)[0], fresh.do(12, "train", base)[0])
    assert same(device.kept, fresh.kept)
    assert [path.name for path in (tmp_path / "local").glob("*.safetensors")] == ["1-12.safetensors"]


@pytest.mark.parametrize("rows", [features(5, seed=3), features(3, seed=9)], ids=["other widths", "other names"])
def test_after_a_change_of_schema_what_the_device_keeps_for_itself_begins_anew(
    tmp_path: Path, rows: Features, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device(tmp_path, MLP, features())
    base, _ = device.do(0, "init")
    device.do(1, "train", base)
    changed, fresh = Device(tmp_path, MLP, rows), Device(tmp_path / "fresh", MLP, rows)
    reports = [one.do(1, "evaluate", base)[1] for one in (changed, fresh)]
    assert [(report.failure, report.before, report.after) for report in reports] == [("", reports[1].before, None)] * 2
    assert f"{tmp_path / 'local'}" in capsys.readouterr().err
    update, report = changed.do(2, "train", base)
    assert report.failure == ""
    assert same(update, fresh.do(2, "train", base)[0])
    capsys.readouterr()
    assert changed.do(3, "train", base)[1].failure == ""
    assert "anew" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("personal", "words"),
    [(("bn.*",), 'called like "bn.*"; there are bias, weight'), (("*",), "leaves none to share; there are bias")],
)
def test_patterns_that_do_not_suit_the_model_are_told_to_the_aggregator(
    tmp_path: Path, personal: tuple[str, ...], words: str
) -> None:
    arrays, report = Device(tmp_path, msgspec.structs.replace(PLAIN, personal=personal), features()).do(0, "init")
    assert arrays == {}
    assert words in report.failure


def test_a_base_with_a_personal_tensor_is_told_to_the_aggregator(tmp_path: Path) -> None:
    base = {"weight": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}
    _, report = Device(tmp_path, PLAIN, features()).do(1, "train", base)
    assert report.failure == "the global model has bias, which plan.personal keeps on the devices"


def test_a_base_that_names_no_schema_is_told_to_the_aggregator_where_all_share_one(tmp_path: Path) -> None:
    device = Device(tmp_path, PLAIN, features())
    phase = Phase("main", 1, 1, "train")
    _, report = device._task.do(phase, PLAIN, lambda: Base({}, None), lambda: False)
    assert "names none" in report.failure


def test_evaluation_reports_the_global_model_and_beside_it_the_devices_own(tmp_path: Path) -> None:
    device = Device(tmp_path, PLAIN, features())
    initial, _ = device.do(0, "init")
    _, first = device.do(1, "train", initial)
    base = {"weight": np.ones((3, 2), np.float32)}
    _, report = device.again().do(1, "evaluate", base)
    assert report.after == first.after
    assert report.before is not None
    assert report.before != first.after
    _, later = device.do(2, "train", base)
    assert device.do(2, "evaluate", base)[1].after == later.after != first.after


def test_a_device_that_has_not_trained_has_no_model_of_its_own(tmp_path: Path) -> None:
    device = Device(tmp_path, PLAIN, features())
    _, report = device.do(1, "evaluate", device.do(0, "init")[0])
    assert (report.failure, report.after) == ("", None)


def test_without_personal_layers_nothing_of_the_model_is_kept_but_how_good_it_was(tmp_path: Path) -> None:
    device = Device(tmp_path, msgspec.structs.replace(PLAIN, personal=(), hidden=(50,)), features())
    _, trained = device.do(1, "train", device.do(0, "init")[0])
    (kept,) = (tmp_path / "local").iterdir()
    assert kept.stat().st_size < 4096
    assert device.again().do(1, "evaluate", {**device.kept})[1].after == trained.after


def test_the_histogram_is_of_the_errors_of_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    device = Device(tmp_path, CODER, features(rows=200))
    base, _ = device.do(0, "init")
    arrays, report = device.do(1, "threshold", base)
    assert (arrays, report.failure, report.before, report.threshold) == ({}, "", None, None)
    assert (len(report.histogram), sum(report.histogram), report.samples) == (BINS, 95, 95)  # the normal half
    local = device.do(1, "evaluate", base)[1].threshold
    assert local is not None
    assert quantile(report.histogram, CODER.threshold_quantile) == pytest.approx(local, rel=0.091)


def test_an_agreed_threshold_counts_in_evaluation_alone_and_is_kept(tmp_path: Path) -> None:
    device = Device(tmp_path, CODER, features(rows=200))
    base, _ = device.do(0, "init")
    own, agreed = device.do(1, "evaluate", base)[1], device.do(1, "evaluate", base, 1e-9)[1]
    assert agreed.threshold == 1e-9
    assert own.before is not None
    assert agreed.before is not None
    assert (agreed.before.accuracy, agreed.before.loss) == (0.5, own.before.loss)  # everything is an anomaly
    trained = device.do(1, "train", base, 1e-9)[1]
    assert trained.threshold not in (None, 1e-9)
    local = Device(tmp_path, msgspec.structs.replace(CODER, threshold="local"), device.rows)
    assert local.do(1, "evaluate", base, 1e-9)[1].threshold == own.threshold


def test_too_few_rows_send_no_histogram(tmp_path: Path) -> None:
    device = Device(tmp_path, msgspec.structs.replace(CODER, min_rows=96), features(rows=200))
    _, report = device.do(1, "threshold", device.do(0, "init")[0])
    assert "95 training rows are too few to tell how large their errors are" in report.failure
    assert report.histogram == ()


def test_a_classifier_cannot_agree_on_a_threshold(tmp_path: Path) -> None:
    _, report = Device(tmp_path, msgspec.structs.replace(MLP, threshold="federated"), features()).do(0, "init")
    assert "model 'mlp' classifies" in report.failure


def test_scaling_is_the_devices_own_whatever_the_base_says(tmp_path: Path) -> None:
    device = Device(tmp_path, msgspec.structs.replace(CODER, scaling="local", threshold="local"), features(rows=200))
    base, _ = device.do(0, "init")
    scaled = {**base, "scaling.mean": np.full(3, 50.0), "scaling.scale": np.full(3, 9.0)}
    assert device.do(1, "evaluate", scaled)[1].before == device.do(1, "evaluate", base)[1].before


def test_histograms_of_devices_come_to_the_quantile_of_all_their_rows() -> None:
    rng = np.random.default_rng(5)
    errors = [rng.lognormal(mean, 1.0, size=rows) for mean, rows in ((-3.0, 400), (0.0, 90), (2.0, 1000))]
    together = np.sum([histogram(one) for one in errors], axis=0)
    assert quantile(together.tolist(), 0.95) == pytest.approx(np.quantile(np.concatenate(errors), 0.95), rel=0.091)


def test_batch_normalisation_stays_at_home_with_its_running_statistics(tmp_path: Path) -> None:
    """FedBN (Li et al. 2021)."""
    device = Device(tmp_path, Plan(model="normed", epochs=2, scaling="none", personal=("bn.*",)), features())
    initial, _ = device.do(0, "init")
    update, report = device.do(1, "train", initial)
    assert report.failure == ""
    assert initial.keys() == update.keys() == {"dense.weight", "dense.bias", "out.weight", "out.bias"}
    statistics = {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert statistics | {"bn.weight", "bn.bias"} == device.kept.keys() - update.keys()
    first = {name: device.kept[name] for name in statistics}
    device.do(2, "train", initial)
    assert device.kept["bn.num_batches_tracked"] == 2 * first["bn.num_batches_tracked"]
