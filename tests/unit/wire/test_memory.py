"""What a device remembers survives a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.memory import Memory
from floe.errors import Refused, StoreError
from floe.messages import Phase

ONE, TWO = Phase("main", 1, 1, "train"), Phase("main", 1, 2, "train")


def test_the_first_key_is_pinned_and_another_is_refused_after_a_restart(tmp_path: Path) -> None:
    Memory(tmp_path).check_key("first")
    again = Memory(tmp_path)
    again.check_key("first")
    with pytest.raises(Refused, match="unknown-key"):
        again.check_key("second")


def test_an_older_message_is_known_after_a_restart_and_streams_do_not_mix(tmp_path: Path) -> None:
    assert Memory(tmp_path).newer("round", 5)
    again = Memory(tmp_path)
    assert [again.newer("round", seq) for seq in (4, 5, 6, 5)] == [False, True, True, False]
    assert again.newer("model", 1)


def test_an_answered_phase_is_not_done_again_after_a_restart(tmp_path: Path) -> None:
    Memory(tmp_path).remember_answer(ONE)
    assert Memory(tmp_path).answered(ONE)
    assert not Memory(tmp_path).answered(TWO)


def test_tasks_of_one_round_are_remembered_together(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    sums, init = Phase("main", 1, 0, "sums"), Phase("main", 1, 0, "init")
    memory.remember_answer(sums)
    memory.remember_answer(init)
    assert memory.answered(sums)
    assert memory.answered(init)


def test_a_late_answer_for_an_old_round_does_not_replace_the_newest(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.remember_answer(TWO)
    memory.remember_answer(ONE)
    assert memory.answered(TWO)


def test_the_file_does_not_grow_with_the_rounds(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for number in range(1, 50):
        memory.remember_answer(Phase("main", 1, number, "train"))
    assert (tmp_path / "memory.json").stat().st_size < 300


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text("{")
    with pytest.raises(StoreError, match=r"memory\.json: damaged"):
        Memory(tmp_path)
