"""The work of a phase: what fails is told or tried again, and the same rounds give the same weights over kills."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import pytest
from helpers.wire import keyring

from edge_client.data.features import Features
from edge_client.work import Done, Failed, Worker
from floe import weights
from floe.messages import Base, Phase, Round
from floe.plan import Plan
from floe.schema import Schema
from floe.settings import Config, Device, Paths

SCHEMA = Schema((2,), 2, ("a", "b"))
PLAN = Plan(model="linear", epochs=1, batch_size=4, report="accuracy")
OWN = """
import torch
class Own(torch.nn.Linear):
    def state_dict(self, *args, **kwargs):
        if self.training and getattr(self, "built", False):
            raise {error}
        self.built = True
        return super().state_dict(*args, **kwargs)
def make(shape, classes, plan):
    return Own(shape[0], classes)
"""


@pytest.fixture(autouse=True)
def _own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_model", None)


def order(number: int = 1, task: str = "train", plan: Plan = PLAN, base: str = "") -> Round:
    phase = msgspec.convert({"lineage": "main", "epoch": 1, "round": number, "task": task}, Phase)
    from_ = Base(sha256=base, transfer="c" * 32) if base else None
    return Round(
        federation="floe", sender="main", key="k", proof="", seq=1, phase=phase, state="open", plan=plan, base=from_
    )


class Bench:
    """A worker whose state is in `folder`, without a loop: what it posts is in `posted`."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(1)
        y = np.arange(24) % 2
        x = (rng.normal(size=(24, 2)) + 3.0 * y[:, None]).astype(np.float32)
        (folder / "state" / "outbox").mkdir(parents=True, exist_ok=True)
        device = Device(id="ann", threads=1)
        config = Config(
            device=device, models={"own": "own_model:make"}, paths=Paths(), folder=folder, file=folder / "floe.toml"
        )
        self.folder = folder
        self.posted: list[object] = []
        features = Features(x[:16], y[:16], x[16:], y[16:], SCHEMA)
        self.worker = Worker(config, features, keyring("plaintext"), folder / "state", self.posted.append)

    def work(self, what: Round, base: BinaryIO | None = None) -> Done | Failed:
        self.worker.start(what, base)
        self.worker.join(60)
        found = self.posted.pop()
        assert isinstance(found, Done | Failed)
        return found

    def model(self) -> bytes:
        return (self.folder / "models" / "ann.safetensors").read_bytes()


@pytest.mark.parametrize("error", ["ValueError('no such layer')", "SystemExit('bye')", "KeyError('w')"])
def test_a_model_of_ones_own_that_fails_outside_its_forward_pass_is_told_to_the_aggregator(
    tmp_path: Path, error: str
) -> None:
    (tmp_path / "own_model.py").write_text(OWN.format(error=error))
    done = Bench(tmp_path).work(order(plan=msgspec.structs.replace(PLAN, model="own")))
    assert isinstance(done, Done)
    kind, text = error.split("(")
    assert f"{kind}: " in done.report.failure
    assert text.strip("')") in done.report.failure


@pytest.mark.parametrize("error", ["OSError(28, 'No space left')", "MemoryError('too much')"])
def test_what_the_machine_had_no_room_for_is_tried_again(tmp_path: Path, error: str) -> None:
    (tmp_path / "own_model.py").write_text(OWN.format(error=error))
    failed = Bench(tmp_path).work(order(plan=msgspec.structs.replace(PLAN, model="own")))
    assert isinstance(failed, Failed)
    assert "No space left" in failed.reason or "too much" in failed.reason


def test_a_model_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    assert isinstance(Bench(tmp_path).work(order()), Failed)


def test_a_round_of_local_training_starts_where_the_last_one_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.work(order(1))
    second = bench.work(order(2))
    assert isinstance(first, Done)
    assert isinstance(second, Done)
    assert first.report.after == second.report.before
    assert second.report.after != second.report.before


def test_a_round_done_again_after_a_kill_before_its_result_was_packed_gives_the_same_weights(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.work(order(1))
    bench.work(order(2))
    undisturbed, local = bench.model(), tmp_path / "state" / "local"
    # A kill after the model of round 2 was written, before its parcel was: the outbox knows nothing of round 2.
    again = Bench(tmp_path)
    again.work(order(2))
    assert again.model() == undisturbed
    again.work(order(3))
    assert {path.name for path in local.iterdir()} == {"1-2.safetensors", "1-3.safetensors"}


def test_the_users_copy_is_not_what_training_starts_from(tmp_path: Path) -> None:
    one, other = Bench(tmp_path / "one"), Bench(tmp_path / "other")
    for bench in (one, other):
        bench.work(order(1))
    (tmp_path / "other" / "models" / "ann.safetensors").unlink()
    for bench in (one, other):
        bench.work(order(2))
    assert one.model() == other.model()


def test_models_of_rounds_that_were_taken_back_are_not_started_from_and_are_removed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in (1, 8, 3):
        bench.work(order(number))
    assert {path.name for path in (tmp_path / "state" / "local").iterdir()} == {"1-1.safetensors", "1-3.safetensors"}


def test_a_base_that_is_replaced_while_the_work_begins_is_read_as_it_was(tmp_path: Path) -> None:
    bench, base, metadata = Bench(tmp_path), tmp_path / "base", {"schema": SCHEMA.to_json()}
    model = {"1.weight": np.ones((2, 2), "<f4"), "1.bias": np.zeros(2, "<f4")}
    weights.write(base, model, metadata)
    file = base.open("rb")
    weights.write(base, {"other": np.zeros(7, "<f4")}, metadata)
    done = bench.work(order(1, task="evaluate", base="b" * 64), file)
    assert isinstance(done, Done)
    assert (done.report.failure, done.report.test_samples) == ("", 8)
    assert weights.read(tmp_path / "models" / "ann.safetensors")["1.weight"].tolist() == [[1, 1], [1, 1]]
    assert file.closed
    assert not (tmp_path / "state" / "local").exists()


def test_a_phase_is_done_before_the_loop_is_told_so(tmp_path: Path) -> None:
    bench, seen = Bench(tmp_path), list[Phase | None]()
    bench.worker._post = lambda _: seen.append(bench.worker.done)
    bench.worker.start(order(), None, fault="none to be had")
    bench.worker.join(60)
    assert seen == [order().phase]


def test_after_cancel_nothing_new_is_posted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.worker.start(order(plan=msgspec.structs.replace(PLAN, epochs=10_000)), None)
    bench.worker.cancel()
    bench.worker.join(60)
    assert not bench.worker.busy
    assert bench.posted == []
