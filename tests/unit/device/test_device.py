"""What a device decides and remembers, without a broker."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest

from edge_client.device import decide
from edge_client.memory import Memory
from edge_client.outbox import FIRST_S, Outbox
from floe.errors import Refused, StoreError
from floe.keyring import Keyring
from floe.messages import Base, Phase, Round
from floe.parcel import pack
from floe.plan import Plan

PHASE = Phase("main", 1, 3, "train")
ORDER = Round(
    federation="f", sender="main", key="k", seq=1, phase=PHASE, state="open", plan=Plan(),
    base=Base(sha256="b" * 64, transfer="c" * 32),
)  # fmt: skip


def test_a_device_without_the_base_fetches_it_before_it_works() -> None:
    assert decide(ORDER, selected=True, done=False, base="", working_on=None) == "fetch"
    assert decide(ORDER, selected=True, done=False, base="b" * 64, working_on=None) == "work"


def test_a_device_works_once_and_only_when_it_is_selected() -> None:
    assert decide(None, selected=True, done=False, base="", working_on=None) == "nothing"
    assert decide(ORDER, selected=False, done=False, base="b" * 64, working_on=None) == "nothing"
    assert decide(ORDER, selected=True, done=True, base="b" * 64, working_on=None) == "nothing"
    assert decide(ORDER, selected=True, done=False, base="b" * 64, working_on=PHASE) == "nothing"


def test_work_for_a_round_that_is_over_is_cancelled() -> None:
    old = Phase("main", 1, 2, "train")
    assert decide(ORDER, selected=True, done=False, base="b" * 64, working_on=old) == "cancel"
    over = msgspec.structs.replace(ORDER, state="finished")
    assert decide(over, selected=True, done=False, base="b" * 64, working_on=PHASE) == "cancel"


def test_memory_survives_a_restart(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.check_key("first")
    assert memory.newer("round", 5)
    memory.remember_answer(PHASE)
    again = Memory(tmp_path)
    with pytest.raises(Refused, match="unknown-key"):
        again.check_key("second")
    assert not again.newer("round", 4)
    assert again.newer("round", 5)
    assert again.answered(PHASE)


def test_memory_forgets_phases_of_older_rounds_only(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for phase in (Phase("main", 1, 2, "train"), PHASE, Phase("main", 1, 3, "evaluate"), Phase("main", 1, 1, "train")):
        memory.remember_answer(phase)
    assert memory.answered(PHASE)
    assert memory.answered(Phase("main", 1, 3, "evaluate"))
    assert not memory.answered(Phase("main", 1, 2, "train"))


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text("{")
    with pytest.raises(StoreError, match=r"memory\.json: damaged"):
        Memory(tmp_path)


def test_the_outbox_keeps_a_result_until_it_is_answered_for(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    parcel = pack(
        tmp_path,
        None,
        "{}",
        Keyring("plaintext", None),
        federation="f",
        phase=PHASE,
        kind="update",
        sender="a",
        base="",
    )
    outbox.put(parcel)
    again = Outbox(tmp_path)
    assert again.holds(PHASE)
    assert [p.name for p in again.due(0.0)] == [parcel.name]
    again.forget(parcel.name)
    assert not again.holds(PHASE)
    assert list(tmp_path.iterdir()) == []


def test_announcements_are_repeated_with_growing_pauses(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(
        pack(tmp_path, None, "{}", Keyring("plaintext", None), federation="f", phase=PHASE, kind="update",
             sender="a", base="")
    )  # fmt: skip
    times, now = [], 0.0
    while len(times) < 4:
        if outbox.due(now):
            times.append(now)
        now += 0.25
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert pauses[0] >= FIRST_S * 0.75
    assert pauses == sorted(pauses)
    outbox.hurry()
    assert len(outbox.due(now)) == 1
