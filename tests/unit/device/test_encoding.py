"""What a device sends by the plan's `upload`, and what rounding took: kept by phase, so that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.plain import Plain

from edge_client.data.features import Features
from edge_client.residuals import Residuals
from edge_client.task import Base, Task
from floe import weights
from floe.encoding import describe, is_encoded
from floe.messages import Phase
from floe.plan import Plan
from floe.schema import Schema
from floe.settings import Config, Device

SCHEMA = Schema((300,), 2)
ROWS = np.random.default_rng(0).normal(size=(40, 300)).astype(np.float32)


def phase(number: int, task: str = "train", epoch: int = 1, lineage: str = "main") -> Phase:
    return Phase(lineage, epoch, number, task)  # type: ignore[arg-type]


def plan(upload: str = "int8", report: str = "weights") -> Plan:
    return Plan(model="plain", epochs=1, learning_rate=0.1, upload=upload, report=report)  # type: ignore[arg-type]


def task(folder: Path) -> Task:
    y = np.arange(40) % 2
    config = Config(device=Device(id="ann"), trainers={"plain": "helpers.plain:Plain"}, folder=folder)
    return Task(
        config, "ann", Features(ROWS[:30], y[:30], ROWS[30:], y[30:], SCHEMA), folder / "local", lambda *_: None
    )


def base(number: int) -> Base:
    rng = np.random.default_rng(number)
    arrays = {"weight": rng.normal(size=(300, 2)).astype(np.float32), "bias": np.zeros(2, np.float32)}
    return Base(arrays, SCHEMA)


def sent(worker: Task, number: int, by: Plan, epoch: int = 1) -> bytes:
    file, report = worker.do(phase(number, epoch=epoch), by, lambda: base(number), lambda: False)
    assert not report.failure
    return b"".join(file or ())


def encoded(file: bytes, folder: Path) -> bool:
    (folder / "sent").write_bytes(file)
    return is_encoded(folder / "sent")


@pytest.mark.parametrize("upload", ["float32", "float16", "int8"])
def test_an_update_is_encoded_as_the_plan_says(tmp_path: Path, upload: str) -> None:
    assert encoded(sent(task(tmp_path), 1, plan(upload)), tmp_path)
    told = describe(tmp_path / "sent").encoding.tensors
    assert {name: coded.coding for name, coded in told.items()} == {"weight": upload}


def test_what_is_no_trained_update_is_not_encoded(tmp_path: Path) -> None:
    worker = task(tmp_path)
    assert not encoded(sent(worker, 1, plan("weights")), tmp_path)
    for kind in ("sums", "init"):
        file, _ = worker.do(phase(0, kind), plan(), None, lambda: False)
        assert not encoded(b"".join(file or ()), tmp_path)
    for by, number in ((plan(report="accuracy"), 1), (plan(), 2)):
        file, report = worker.do(
            phase(number, "train" if number == 1 else "evaluate"), by, lambda: base(1), lambda: False
        )
        assert (file, report.failure) == (None, "")


def test_a_phase_that_is_done_again_after_a_kill_gives_the_same_bytes(tmp_path: Path) -> None:
    worker = task(tmp_path)
    first = [sent(worker, number, plan()) for number in (1, 2, 3)]
    assert sent(task(tmp_path), 3, plan()) == first[2]
    assert sent(task(tmp_path), 4, plan()) == sent(task(tmp_path), 4, plan())
    assert sent(task(tmp_path / "fresh"), 3, plan()) != first[2], "the residual of phase 2 is part of it"


def test_residuals_end_with_the_epoch(tmp_path: Path) -> None:
    worker = task(tmp_path)
    sent(worker, 1, plan())
    assert sent(worker, 2, plan(), epoch=2) == sent(task(tmp_path / "fresh"), 2, plan(), epoch=2)


def test_residuals_end_with_the_lineage(tmp_path: Path) -> None:
    residuals = Residuals(tmp_path)
    residuals.keep(phase(7, lineage="old"), {"w": np.ones(3, np.float32)})
    assert residuals.before(phase(12, lineage="old")).keys() == {"w"}
    assert residuals.before(phase(12)) == {}


@pytest.mark.parametrize("upload", ["weights", "float32"])
def test_residuals_end_with_a_phase_whose_plan_leaves_none(tmp_path: Path, upload: str) -> None:
    worker = task(tmp_path)
    sent(worker, 1, plan())
    sent(worker, 2, plan(upload))
    assert sent(worker, 3, plan()) == sent(task(tmp_path / "fresh"), 3, plan())


def test_a_plan_without_encoding_writes_no_residual(tmp_path: Path) -> None:
    sent(task(tmp_path), 1, plan("weights"))
    assert list((tmp_path / "local" / "rounding").rglob("*.safetensors")) == []


def test_a_damaged_residual_is_set_aside_and_the_work_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    residuals = Residuals(tmp_path)
    residuals.keep(phase(1), {"w": np.ones(3, np.float32)})
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert residuals.before(phase(2)) == {}
    assert [found.name for found in tmp_path.iterdir()] == ["1-1.safetensors.damaged"]
    assert "set aside" in "".join(capsys.readouterr())


def test_the_residual_is_what_the_aggregator_did_not_get(tmp_path: Path) -> None:
    worker, start = task(tmp_path), base(1).arrays["weight"]
    trained, _ = Plain(worker._features, plan()).train(base(1).arrays, device="ann", round=1, stop=lambda: False)
    sent(worker, 1, plan())
    (kept,) = (tmp_path / "local" / "rounding").glob("*.safetensors")
    left: npt.NDArray[np.float32] = weights.read(kept)["weight"]
    largest = np.abs(trained["weight"] - start).max()
    assert 0 < np.abs(left).max() < largest / 127 * 1.001
