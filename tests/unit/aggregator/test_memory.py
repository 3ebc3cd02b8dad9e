"""What an optimizer remembers, over kills, promotions and other rules; and a model that is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.chain import INIT, TRAIN, accept, started
from helpers.killed import Killed, killed_at

from aggregator.chain import Chain
from aggregator.log import Log
from aggregator.states import State
from floe import weights
from floe.errors import RuleError
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Rounds

MOMENTUM = Plan(rule="fedavgm", scaling="none", server_momentum=0.5)
HARD = msgspec.structs.replace(MOMENTUM, server_learning_rate=10.0)


def train(number: int) -> Phase:
    return msgspec.structs.replace(TRAIN, round=number)


def open_(chain: Chain, number: int, plan: Plan = MOMENTUM) -> None:
    chain.open(State(train(number), stage="open", plan=plan, expected=frozenset("ab")))


def round_(chain: Chain, log: Log, number: int, moved: float, plan: Plan = MOMENTUM) -> float:
    """The number that a model is full of, after a round whose mean moves it by so much."""
    open_(chain, number, plan)
    sent(chain, log, number, moved)
    chain.close(train(number), up=0, down=0)
    return value(chain)


def sent(chain: Chain, log: Log, number: int, moved: float) -> None:
    at = value(chain)
    for device, off in (("a", -1.0), ("b", 1.0)):
        accept(chain, log, train(number), device, w=np.full(3, at + moved + off, np.float32))


def value(chain: Chain) -> float:
    assert chain.model is not None
    return float(weights.read(chain.model.path)["w"][0])


@contextmanager
def begun(folder: Path, **more: Any) -> Iterator[tuple[Chain, Log]]:
    """A chain with a model of zeros; what is there already is restored."""
    with started(folder, plan=MOMENTUM, **more) as (chain, _, log):
        if chain.model is None:
            chain.open(State(INIT, stage="open", expected=frozenset("ab")))
            accept(chain, log, INIT, "a", w=np.zeros(3, np.float32))
            chain.close(INIT, up=0, down=0)
        yield chain, log


def kept(folder: Path) -> list[str]:
    there = folder / "state" / "aggregator-main" / "optimizer"
    return sorted(path.name.split("-")[0] for path in there.glob("*"))


def told(log: Log) -> list[str]:
    return [row[0] for row in log.db.execute("SELECT text FROM events WHERE kind = 'optimizer' ORDER BY id").fetchall()]


def test_a_memory_goes_on_over_rounds_and_restarts_and_the_last_two_are_kept(tmp_path: Path) -> None:
    found = []
    for number in (1, 2, 3, 4):
        with begun(tmp_path) as (chain, log):
            found.append(round_(chain, log, number, 8.0))
    # v: 8, 12, 14, 15
    assert found == [8.0, 20.0, 34.0, 49.0]
    assert kept(tmp_path) == ["3", "4"]
    with begun(tmp_path) as (_, log):
        assert [text.partition(":")[0] for text in told(log)] == ["fedavgm begins at zero"]
        assert log.db.execute("SELECT weight FROM updates WHERE round = 4").fetchall() == [(0.5,), (0.5,)]


def test_killed_at_any_step_of_a_close_the_same_model_and_memory_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begun(tmp_path / "undisturbed") as (chain, log):
        expected = [round_(chain, log, number, 8.0) for number in (1, 2)]
    memories = {path.name for path in (tmp_path / "undisturbed/state/aggregator-main/optimizer").glob("*")}
    for step in range(1, 30):
        folder = tmp_path / f"killed-{step}"
        with begun(folder) as (chain, log):
            assert round_(chain, log, 1, 8.0) == expected[0]
            open_(chain, 2)
            sent(chain, log, 2, 8.0)
            with monkeypatch.context() as patch:
                taken = killed_at(patch, step)
                try:
                    chain.close(train(2), up=0, down=0)
                except Killed:
                    pass
                else:
                    assert any(name.startswith("replace next.safetensors") for name in taken)
                    return
        with begun(folder) as (chain, _):
            chain.close(train(2), up=0, down=0)
            assert value(chain) == expected[1]
        there = folder / "state" / "aggregator-main" / "optimizer"
        assert {path.name for path in there.glob("*-*")} == memories
    pytest.fail("it never came to its end")


def test_a_model_without_a_memory_begins_at_zero_and_that_is_told(tmp_path: Path) -> None:
    with begun(tmp_path) as (chain, log):
        round_(chain, log, 1, 8.0)
        assert round_(chain, log, 2, 1.0, Plan(scaling="none")) == 9.0
        assert round_(chain, log, 3, 8.0) == 17.0, "a mean was in between"
        assert round_(chain, log, 4, 8.0, msgspec.structs.replace(MOMENTUM, rule="fedadagrad", server_tau=1.0)) < 18
        assert [text.partition(":")[0] for text in told(log)] == [
            "fedavgm begins at zero", "fedavgm begins at zero", "fedadagrad begins at zero",
        ]  # fmt: skip


def test_a_round_of_reports_alone_leaves_the_model_and_the_memory_as_they_were(tmp_path: Path) -> None:
    with begun(tmp_path) as (chain, log):
        round_(chain, log, 1, 8.0)
        open_(chain, 2)
        chain.close(train(2), up=0, down=0)
        assert value(chain) == 8.0
        assert round_(chain, log, 3, 8.0) == 20.0
        assert len(told(log)) == 1


def test_another_step_keeps_the_memory(tmp_path: Path) -> None:
    with begun(tmp_path) as (chain, log):
        round_(chain, log, 1, 8.0)
        slower = msgspec.structs.replace(MOMENTUM, server_learning_rate=0.5)
        assert round_(chain, log, 2, 8.0, slower) == 8 + 0.5 * (0.5 * 8 + 8)
        assert len(told(log)) == 1


def test_a_memory_that_the_disk_has_damaged_is_set_aside(tmp_path: Path) -> None:
    with begun(tmp_path) as (chain, log):
        round_(chain, log, 1, 8.0)
    (path,) = (tmp_path / "state/aggregator-main/optimizer").glob("1-*")
    path.write_bytes(b"damaged")
    with begun(tmp_path) as (chain, log):
        assert round_(chain, log, 2, 8.0) == 16.0
        (text,) = log.db.execute("SELECT text FROM events WHERE kind = 'damaged'").fetchone()
        assert "the optimizer begins anew" in text
        assert path.with_name(f"{path.name}.damaged").exists()


def test_updates_that_make_no_model_make_the_round_void_and_no_other_uses_them(tmp_path: Path) -> None:
    with begun(tmp_path, rounds=Rounds(devices=2, late="merge")) as (chain, log):
        round_(chain, log, 1, 8.0)
        before = {*(tmp_path / "models" / "global").iterdir()}
        open_(chain, 2, HARD)
        sent(chain, log, 2, 1e38)
        for _ in range(2):  # tried again, the same
            with pytest.raises(RuleError, match="'w' has inf at 0"):
                chain.close(train(2), up=0, down=0)
        assert chain.void(train(2), "too large") == "too large"
        assert {*(tmp_path / "models" / "global").iterdir()} == before
        assert kept(tmp_path) == ["1"]
        assert round_(chain, log, 3, 8.0) == 20.0, "of the model and the memory before; the others are in no model"
