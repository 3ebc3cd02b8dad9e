"""DP-SGD on a device: what it costs, where its noise comes from, what stays at home, what is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from edge_client import dpsgd, models
from edge_client.data.features import Features
from edge_client.interrupted import Interrupted
from edge_client.ledger import Ledger, Spent
from edge_client.privacy import agree, epsilon_of
from edge_client.task import Task
from edge_client.trainer import Arrays, Trainer
from floe.errors import ConfigError, DataError
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Report
from floe.settings import Config, Device, Paths

PLAN = Plan(
    model="mlp", hidden=(4,), scaling="none", epochs=2, batch_size=7, optimizer="sgd", learning_rate=0.1,
    privacy="example", noise_multiplier=1.0, delta=1e-3,
)  # fmt: skip


def replaced(**changes: object) -> Plan:
    return msgspec.structs.replace(PLAN, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "privacy"


def train(table: Features, folder: Path, plan: Plan = PLAN, round: int = 1) -> tuple[Arrays, Report]:
    trainer = Trainer(table, plan, {}, 1, Ledger(folder))
    return trainer.train(trainer.initial(), device="ann", round=round, stop=lambda: False)


def test_epsilon_is_opacus_of_all_rounds_by_the_steps_that_were_planned(table: Features, folder: Path) -> None:
    spent = [train(table, folder, round=number)[1].privacy for number in (1, 2, 3)]
    steps = 2 * 4  # two epochs of 28 rows in batches of 7
    assert [one.epsilon for one in spent if one] == [epsilon_of([Spent(1.0, 0.25, k * steps)], 1e-3) for k in (1, 2, 3)]
    assert {(one.delta, one.accountant) for one in spent if one} == {(1e-3, "rdp")}


def test_an_account_never_falls_whatever_the_plans_and_a_smaller_delta_costs_more(folder: Path) -> None:
    """What `aggregator.spending` takes a fall by."""
    ledger, deltas = Ledger(folder), (1e-2, 1e-5, 1e-9)
    before = dict.fromkeys(deltas, 0.0)
    plans = [(1.0, 0.25), (1.0, 0.25), (20.0, 0.01), (0.6, 1.0), (1.0, 0.25), (500.0, 0.001), (500.0, 0.002)]
    for number, (noise, rate) in enumerate(plans):
        spent = Spent(noise, rate, 3)
        now = {delta: epsilon_of(ledger.after(f"{number}", spent), delta) for delta in deltas}
        assert now[1e-2] < now[1e-5] < now[1e-9]
        assert all(now[delta] >= before[delta] for delta in deltas)
        ledger.book(f"{number}", spent, "plan")
        before = now


def test_a_round_that_is_done_again_costs_nothing_and_gives_the_same_bytes(table: Features, folder: Path) -> None:
    first, told = train(table, folder)
    again, told_again = train(table, folder)
    assert told.privacy == told_again.privacy
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 0.2}, {"epochs": 1}])
def test_another_plan_in_the_same_round_is_counted_and_has_noise_of_its_own(
    table: Features, folder: Path, change: dict[str, object]
) -> None:
    """Else the difference of the two would have no noise at all."""
    _, before = train(table, folder)
    _, after = train(table, folder, replaced(**change))
    assert before.privacy
    assert after.privacy
    assert after.privacy.epsilon > before.privacy.epsilon


def test_other_rows_or_another_base_are_other_work(table: Features, folder: Path) -> None:
    train(table, folder)
    x = table.train_x.copy()
    x[0, 0] += 1
    changed = Features(x, table.train_y, table.test_x, table.test_y, table.schema)
    _, other_rows = train(changed, folder)
    trainer = Trainer(table, PLAN, {}, 1, Ledger(folder))
    base = {name: array + np.float32(1e-3) for name, array in trainer.initial().items()}
    _, other_base = trainer.train(base, device="ann", round=1, stop=lambda: False)
    assert [one.privacy.epsilon for one in (other_rows, other_base) if one.privacy] == [
        epsilon_of([Spent(1.0, 0.25, 8 * k)], 1e-3) for k in (2, 3)
    ]


def test_the_noise_has_the_deviation_that_was_promised(table: Features, folder: Path) -> None:
    """With a learning rate of 1 and a step in which gradients are cut to next to nothing, the step is the noise."""
    plan = replaced(hidden=(500,), epochs=1, batch_size=0, learning_rate=1.0, noise_multiplier=3.0, max_grad_norm=1e-3)
    initial = Trainer(table, plan, {}, 1).initial()
    trained, _ = train(table, folder, plan)
    steps = np.concatenate([(trained[name] - initial[name]).ravel() for name in initial])
    assert steps.std() * 28 == pytest.approx(3.0 * 1e-3, rel=0.05)


def stepped(table: Features, key: bytes) -> bytes:
    """The weights after steps of noise and sampled rows with this key."""
    torch.manual_seed(0)
    model = models.Model(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), "classification", "tiny")
    terms = dpsgd.Terms(Spent(1.0, 0.5, 1), 14, key, None)  # type: ignore[arg-type]
    x, y = torch.from_numpy(table.train_x), torch.from_numpy(table.train_y)
    dpsgd.optimise_privately(model, x, y, PLAN, terms, lambda: False)
    return nn.utils.parameters_to_vector(model.module.parameters()).detach().numpy().tobytes()


def test_every_byte_of_the_key_counts(table: Features) -> None:
    """torch's generator would heed 32 bits of a seed: so few can be tried out."""
    keys = [bytes(16), *(bytes(place) + b"\1" + bytes(15 - place) for place in range(16))]
    assert len({stepped(table, key) for key in keys}) == 17
    assert stepped(table, keys[1]) == stepped(table, keys[1])


def test_no_row_moves_a_step_by_more_than_the_clipping_norm(table: Features) -> None:
    """Every row as a device of its own, without noise: the step is its gradient, cut to the norm."""
    torch.manual_seed(0)
    model = models.Model(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), "classification", "tiny")
    before = nn.utils.parameters_to_vector(model.module.parameters()).detach().clone()
    plan = replaced(learning_rate=1.0, max_grad_norm=0.01)
    terms = dpsgd.Terms(Spent(0.0, 1.0, 1), 1, bytes(16), None)  # type: ignore[arg-type]
    x, y = torch.from_numpy(table.train_x[:1] * 100), torch.from_numpy(table.train_y[:1])
    dpsgd.optimise_privately(model, x, y, plan, terms, lambda: False)
    after = nn.utils.parameters_to_vector(model.module.parameters()).detach()
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_rows_in_parts_give_what_they_give_together(
    table: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(table, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(dpsgd, "GRADIENTS", 1)  # a row at a time
    parts, _ = train(table, tmp_path / "b")
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-5)


@pytest.mark.parametrize("change", [{"mu": 0.5}, {"optimizer": "adam"}, {"model": "autoencoder", "hidden": (2,)}])
def test_fedprox_adam_and_autoencoders_are_trained_privately_too(
    table: Features, folder: Path, change: dict[str, object]
) -> None:
    trained, report = train(table, folder, replaced(**change))
    assert report.privacy
    assert report.train_loss is None
    assert all(np.isfinite(array).all() for array in trained.values())


def test_the_noise_for_an_epsilon_is_found_once_and_lasts_as_long_as_was_asked(table: Features, folder: Path) -> None:
    plan = replaced(noise_multiplier=0.0, epsilon=3.0, privacy_rounds=4)
    told = [train(table, folder, plan, number)[1].privacy for number in (1, 2, 3, 4)]
    assert 2.95 < max(one.epsilon for one in told if one) <= 3.0
    fewer = Features(
        table.train_x[:20], table.train_y[:20], table.test_x, table.test_y, table.schema
    )  # the same noise, though another would be found for so many
    noise = Ledger(folder).noise("3.0 0.001 4 2 7")
    roomy = replaced(noise_multiplier=0.0, epsilon=3.0, privacy_rounds=4)
    with pytest.raises(
        DataError, match=r"privacy budget spent: epsilon \d+\.\d\d of 3\.0 \(example, delta 0\.001, rdp\)"
    ):
        train(fewer, folder, roomy, 5)
    assert Ledger(folder).noise("3.0 0.001 4 2 7") == noise


def test_nothing_is_trained_or_booked_when_the_budget_is_spent(table: Features, folder: Path) -> None:
    plan = replaced(epsilon=5.0)
    train(table, folder, plan)
    before = (folder / "ledger.json").read_bytes()
    with pytest.raises(DataError, match=r"privacy budget spent: epsilon .* of 5\.0"):
        train(table, folder, plan, 2)
    assert (folder / "ledger.json").read_bytes() == before


def test_the_devices_own_budget_counts_too(table: Features, folder: Path) -> None:
    with pytest.raises(DataError, match=r"of 0\.5 \(example"):
        agree(PLAN, 28, Ledger(folder, 0.5), "work")
    assert agree(PLAN, 28, Ledger(folder), "work").privacy.epsilon > 0.5


def test_training_is_booked_before_its_first_step(table: Features, folder: Path) -> None:
    trainer = Trainer(table, PLAN, {}, 1, Ledger(folder))
    seen: list[bool] = []

    def stop() -> bool:
        seen.append((folder / "ledger.json").exists())
        return seen[-1]

    with pytest.raises(Interrupted):
        trainer.train(trainer.initial(), device="ann", round=1, stop=stop)
    assert Ledger(folder).after("other", Spent(1.0, 0.25, 0)) == [Spent(1.0, 0.25, 8)]


def test_a_delta_that_protects_no_single_row_is_refused(table: Features, folder: Path) -> None:
    with pytest.raises(DataError, match=r"plan.delta = 0.1 is not below 1 / 28 .*set delta to 0.001 or less"):
        Trainer(table, replaced(delta=0.1), {}, 1, Ledger(folder))


def test_a_target_that_no_noise_reaches_is_refused(table: Features, folder: Path) -> None:
    plan = replaced(noise_multiplier=0.0, epsilon=0.1, delta=1e-300, privacy_rounds=1000)
    with pytest.raises(DataError, match=r"no noise keeps epsilon below 0.1 \(delta 1e-300\)"):
        train(table, folder, plan)


@pytest.mark.parametrize("norm", ["BatchNorm1d(4)", "BatchNorm1d(4, affine=False)"])
def test_batch_norm_is_refused_when_the_trainer_is_made(
    table: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    layers = f"nn.Linear(3, 4), nn.{norm}, nn.Linear(4, c)"
    source = f"from torch import nn\ndef make(s, c, p):\n    return nn.Sequential({layers})\n"
    (tmp_path / "normed.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(ConfigError, match=r"layer '1' is BatchNorm1d.*use GroupNorm"):
            Trainer(table, replaced(model="normed"), {"normed": "normed:make"}, 1)
    finally:
        sys.modules.pop("normed", None)


def test_a_buffer_that_rows_change_is_refused() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += x.detach().sum(0)
            return x

    model = models.Model(nn.Sequential(Counts(), nn.Linear(3, 2)), "classification", "'mine'")
    x, y = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    terms = dpsgd.Terms(Spent(1.0, 1.0, 1), 4, bytes(16), None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"'mine': training has changed the buffer '0.seen'"):
        dpsgd.optimise_privately(model, x, y, PLAN, terms, lambda: False)


def test_without_opacus_the_plan_is_refused_with_the_command(table: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"needs opacus, which is absent: pip install 'floe\[dp\]'"):
        Trainer(table, PLAN, {}, 1)


def test_sums_do_not_leave_under_a_private_plan(table: Features) -> None:
    with pytest.raises(DataError, match="none leave this device"):
        Trainer(table, PLAN, {}, 1).sums()


class Kept:
    """A task of a device in a folder, and the report that it kept for its user."""

    def __init__(self, table: Features, folder: Path, *, trainers: dict[str, str] | None = None, epsilon: float = 0.0):
        device = Device(id="ann", threads=1, epsilon=epsilon)
        config = Config(device=device, trainers=trainers or {}, paths=Paths(), folder=folder, file=folder / "floe.toml")
        self.task = Task(config, "ann", table, folder / "local", self._keep)
        self.report = Report()

    def _keep(self, _arrays: object, report: Report, _phase: object, _plan: object) -> None:
        self.report = report

    def do(self, plan: Plan, task: str = "train") -> tuple[object, Report]:
        phase = msgspec.convert({"lineage": "main", "epoch": 1, "round": 1, "task": task}, Phase)
        return self.task.do(phase, plan, None, lambda: False)


def test_the_threshold_stays_at_home(table: Features, tmp_path: Path) -> None:
    kept = Kept(table, tmp_path)
    _, told = kept.do(replaced(model="autoencoder", hidden=(2,)))
    assert told.privacy
    assert (told.threshold, told.histogram, told.train_loss) == (None, (), None)
    assert kept.report.threshold is not None


def test_a_spent_budget_is_a_report_without_weights(table: Features, tmp_path: Path) -> None:
    arrays, report = Kept(table, tmp_path).do(replaced(epsilon=0.5))
    assert arrays is None
    assert report.failure.startswith("privacy budget spent: epsilon ")


def test_a_device_with_a_budget_of_its_own_trains_only_privately(table: Features, tmp_path: Path) -> None:
    kept = Kept(table, tmp_path, epsilon=3.0)
    for task in ("train", "sums", "init"):
        arrays, report = kept.do(replaced(privacy="none", noise_multiplier=0.0), task)
        assert arrays is None
        assert "device.epsilon" in report.failure


def test_a_trainer_of_the_users_own_cannot_promise_anything(table: Features, tmp_path: Path) -> None:
    _, report = Kept(table, tmp_path, trainers={"mlp": "helpers.plain:Plain"}).do(PLAN)
    assert "is your own" in report.failure
