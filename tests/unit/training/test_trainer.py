"""One device's work in a round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edge_client.data.features import Features
from edge_client.trainer import Interrupted, Trainer
from floe.errors import DataError
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema

Arrays = dict[str, np.ndarray]
AUTOENCODER = Plan(model="autoencoder", hidden=(2,), epochs=30, batch_size=8, learning_rate=0.02)
CNN = Plan(model="cnn", scaling="none", epochs=1, batch_size=4, learning_rate=0.05, optimizer="sgd", momentum=0.9)
OWN = {"mine": "own:good", "fails": "own:fails_in_training"}


def never() -> bool:
    return False


def train(trainer: Trainer, base: Arrays, device: str = "a", round: int = 1) -> tuple[Arrays, Report]:
    return trainer.train(base, device=device, round=round, stop=never)


def one_weight(x: list[float], y: list[int]) -> Features:
    rows, labels = np.array(x, np.float32).reshape(-1, 1), np.array(y, np.int64)
    return Features(rows, labels, rows, labels, Schema((1,), 2))


def equal(one: Arrays, two: Arrays) -> bool:
    return one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)


@pytest.fixture(autouse=True)
def _own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)


def test_initial_weights_depend_on_the_seed_alone(table: Features) -> None:
    first = Trainer(table, AUTOENCODER, {}).initial()
    torch.manual_seed(7)
    other_device = msgspec.structs.replace(AUTOENCODER, epochs=3)
    other_rows = Features(table.test_x, table.test_y, table.train_x, table.train_y, table.schema)
    assert equal(first, Trainer(other_rows, other_device, {}).initial())
    assert not equal(first, Trainer(table, msgspec.structs.replace(AUTOENCODER, seed=1), {}).initial())


@pytest.mark.parametrize("plan", [AUTOENCODER, CNN, Plan(model="mine", epochs=3, batch_size=5)])
def test_the_same_inputs_give_the_same_weights_bit_for_bit(table: Features, images: Features, plan: Plan) -> None:
    features = images if plan.model == "cnn" else table
    base = Trainer(features, plan, OWN).initial()
    first, _ = train(Trainer(features, plan, OWN), base)
    torch.manual_seed(99)
    again = Trainer(features, plan, OWN)
    train(again, base, round=5)
    assert equal(first, train(again, base)[0])


@pytest.mark.parametrize(("device", "round"), [("b", 1), ("a", 2)])
def test_device_and_round_shuffle_differently(table: Features, device: str, round: int) -> None:
    trainer = Trainer(table, AUTOENCODER, {})
    base = trainer.initial()
    assert not equal(train(trainer, base)[0], train(trainer, base, device, round)[0])


def test_training_leaves_the_global_generator_as_it_was(table: Features) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    trainer = Trainer(table, Plan(model="mine", epochs=1), OWN)
    train(trainer, trainer.initial())
    assert torch.rand(1) == expected


def test_threads_are_set_only_when_asked_for(table: Features) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        Trainer(table, AUTOENCODER, {})
        assert torch.get_num_threads() == 3
        Trainer(table, AUTOENCODER, {}, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_nothing_that_is_passed_in_is_changed(images: Features) -> None:
    for array in (images.train_x, images.train_y, images.test_x, images.test_y):
        array.flags.writeable = False
    trainer = Trainer(images, CNN, {})
    base = trainer.initial()
    for array in base.values():
        array.flags.writeable = False
    new, _ = train(trainer, base)
    assert not equal(new, base)
    assert equal(trainer.initial(), base)


def test_weights_are_contiguous_and_buffers_are_among_them(table: Features, images: Features) -> None:
    trainer = Trainer(table, Plan(model="mine", epochs=2, batch_size=14), OWN)
    weights, _ = train(trainer, trainer.initial())
    assert weights["2.num_batches_tracked"] == np.array(4)
    assert (weights["2.num_batches_tracked"].dtype, weights["2.num_batches_tracked"].shape) == (np.int64, ())
    assert all(array.flags.c_contiguous for array in Trainer(images, CNN, {}).initial().values())


def test_one_step_of_sgd_by_hand() -> None:
    # logits (wx, 0) with w = 0: softmax 1/2 each; d loss / d w0 = (1/2 - [y = 0]) x, mean over the rows
    plan = Plan(model="linear", epochs=1, batch_size=0, learning_rate=0.5, optimizer="sgd", scaling="none")
    trainer = Trainer(one_weight([1, 3], [0, 1]), plan, {})
    weights, report = train(trainer, {name: np.zeros_like(array) for name, array in trainer.initial().items()})
    assert weights["1.weight"].ravel().tolist() == [-0.25, 0.25]
    assert weights["1.bias"].tolist() == [0.0, 0.0]
    assert report.train_loss == pytest.approx(np.log(2))


def test_the_proximal_term_of_fedprox_by_hand() -> None:
    # two full steps: w1 = -lr g(w0), w2 = w1 - lr (g(w1) + mu (w1 - w0)); mu adds exactly -lr mu (w1 - w0)
    plan = Plan(model="linear", epochs=2, batch_size=0, learning_rate=0.5, optimizer="sgd", scaling="none")
    features = one_weight([1, 3], [0, 1])
    zeros = {name: np.zeros_like(array) for name, array in Trainer(features, plan, {}).initial().items()}
    without, _ = train(Trainer(features, plan, {}), zeros)
    prox, _ = train(Trainer(features, msgspec.structs.replace(plan, mu=2.0), {}), zeros)
    pulled_back = prox["1.weight"] - without["1.weight"]
    assert pulled_back.ravel().tolist() == pytest.approx([0.25, -0.25])


def test_an_autoencoder_learns_from_normal_rows_only(table: Features) -> None:
    trainer = Trainer(table, AUTOENCODER, {})
    _, report = train(trainer, trainer.initial())
    assert (report.samples, report.test_samples) == (21, 12)
    assert trainer.sums()["sums.count"].tolist() == [21]


def test_an_autoencoder_finds_the_anomalies(table: Features) -> None:
    trainer = Trainer(table, AUTOENCODER, {})
    weights, report = train(trainer, trainer.initial())
    assert report.before is not None
    assert report.after is not None
    assert report.after.loss < report.before.loss
    assert report.after.roc_auc == 1.0
    assert report.threshold is not None
    after = trainer.evaluate(weights)
    assert (after.before, after.threshold) == (report.after, report.threshold)


def test_a_cnn_learns_its_images(images: Features) -> None:
    same = Features(images.train_x, images.train_y, images.train_x, images.train_y, images.schema)
    trainer = Trainer(same, msgspec.structs.replace(CNN, epochs=40), {})
    _, report = train(trainer, trainer.initial())
    assert report.after is not None
    assert (report.after.accuracy, report.after.roc_auc, report.threshold) == (1.0, 1.0, None)


def test_the_scaling_of_the_base_is_used_and_not_returned(table: Features) -> None:
    trainer = Trainer(table, AUTOENCODER, {})
    weights = trainer.initial()
    wide = {"scaling.mean": np.zeros(3), "scaling.scale": np.full(3, 1e6)}
    scaled = trainer.evaluate({**weights, **wide}).before
    own = trainer.evaluate(weights).before
    assert scaled is not None
    assert own is not None
    assert scaled.loss != own.loss
    assert train(trainer, {**weights, **wide})[0].keys() == weights.keys()


def test_without_scaling_in_the_base_a_device_scales_by_its_own_training_rows(table: Features) -> None:
    trainer = Trainer(table, AUTOENCODER, {})
    normal = table.train_x[table.train_y == 0].astype(np.float64)
    own = {"scaling.mean": normal.mean(axis=0), "scaling.scale": normal.std(axis=0)}
    weights = trainer.initial()
    given = trainer.evaluate({**weights, **own})
    assert given.before is not None
    found = trainer.evaluate(weights).before
    assert found is not None
    assert found.loss == pytest.approx(given.before.loss, rel=1e-5)


def test_sums_of_few_rows_are_refused(table: Features) -> None:
    with pytest.raises(DataError, match=r"21 training rows are too few .* 22 or more \(plan.min_rows\)"):
        Trainer(table, msgspec.structs.replace(AUTOENCODER, min_rows=22), {}).sums()
    assert Trainer(table, msgspec.structs.replace(AUTOENCODER, min_rows=21), {}).sums()["sums.count"] == [21]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda base: base.pop("1.bias"), r"no 1.bias; model 'linear' needs it as float32\(2,\)"),
        (lambda base: base.update({"9.bias": np.zeros(4)}), r"has 9.bias of shape \(4,\)"),
        (
            lambda base: base.update({"1.weight": np.zeros((2, 5), np.float32)}),
            r"1.weight is float32\(2, 5\) .*\(2, 3\)",
        ),
        (lambda base: base.update({"1.bias": np.zeros(2)}), r"1.bias is float64\(2,\) .* float32\(2,\)"),
        (lambda base: base.update({"scaling.mean": np.zeros(3)}), "scaling.scale is missing"),
    ],
)
def test_a_base_that_does_not_fit_is_refused_by_name(
    table: Features, change: Callable[[Arrays], Any], message: str
) -> None:
    trainer = Trainer(table, Plan(model="linear"), {})
    base = trainer.initial()
    change(base)
    with pytest.raises(DataError, match=message):
        train(trainer, base)
    with pytest.raises(DataError, match=message):
        trainer.evaluate(base)


@pytest.mark.parametrize("allowed", [0, 1, 2, 20])
def test_stop_interrupts_between_batches(table: Features, allowed: int) -> None:
    asked = []
    trainer = Trainer(table, AUTOENCODER, {})
    with pytest.raises(Interrupted):
        trainer.train(trainer.initial(), device="a", round=1, stop=lambda: asked.append(None) or len(asked) > allowed)
    assert len(asked) == allowed + 1


@pytest.mark.parametrize("batch_size", [0, 8])
def test_training_that_diverges_says_so(table: Features, batch_size: int) -> None:
    plan = msgspec.structs.replace(AUTOENCODER, optimizer="sgd", learning_rate=900.0, batch_size=batch_size)
    trainer = Trainer(table, plan, {})
    with pytest.raises(DataError, match=r"'autoencoder' diverged.*lower plan.learning_rate, now 900"):
        train(trainer, trainer.initial())


def test_an_autoencoder_without_normal_rows_is_refused(table: Features) -> None:
    odd = table.train_y == 1
    only = Features(table.train_x[odd], table.train_y[odd], table.test_x, table.test_y, table.schema)
    with pytest.raises(DataError, match=r"label 0 \(normal\); train_y has none"):
        Trainer(only, AUTOENCODER, {})


def test_an_own_model_that_fails_in_training_is_named(table: Features) -> None:
    trainer = Trainer(table, Plan(model="fails"), OWN)
    with pytest.raises(
        DataError, match=r"'fails' \(own:fails_in_training\) failed .* RuntimeError: only made for show"
    ):
        train(trainer, trainer.initial())


@pytest.mark.parametrize("rows", [9, 28])
def test_batchnorm_never_sees_a_batch_of_one(table: Features, rows: int) -> None:
    few = Features(table.train_x[:rows], table.train_y[:rows], table.test_x, table.test_y, table.schema)
    trainer = Trainer(few, Plan(model="mine", epochs=1, batch_size=rows - 1), OWN)
    assert train(trainer, trainer.initial())[1].samples == rows
