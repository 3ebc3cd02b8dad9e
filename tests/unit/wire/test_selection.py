"""Who takes part: the same answer everywhere, and as many as Algorithm 1 asks for."""

from __future__ import annotations

import hashlib

import pytest
from helpers.wire import PHASE, names, phases
from hypothesis import given
from hypothesis import strategies as st

from floe import messages as m
from floe.selection import EVERYBODY, bar_for, rank, takes_part

FLEET = [f"d{i}" for i in range(200)]


def chosen(devices: list[str], fraction: float, members: list[str] | None = None) -> set[str]:
    bar = bar_for(devices, PHASE, 5, fraction, members or [])
    return {device for device in devices if takes_part(device, PHASE, 5, bar, members or [])}


def test_the_bytes_that_are_hashed_are_those_of_the_contract() -> None:
    text = b"floe-v1 select\n42\nmain\n1\n3\nann"
    assert rank("ann", PHASE, 42) == hashlib.sha256(text).hexdigest()[:16]


def test_a_device_on_the_bar_takes_part_and_one_above_does_not() -> None:
    mine = rank("ann", PHASE, 42)
    assert takes_part("ann", PHASE, 42, mine, [])
    assert not takes_part("ann", PHASE, 42, f"{int(mine, 16) - 1:016x}", [])


@given(names, phases, st.integers(0, 2**31), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_who_takes_part_under_a_bar_does_so_under_every_higher_one(
    device: str, phase: m.Phase, seed: int, one: int, other: int
) -> None:
    low, high = (f"{bar:016x}" for bar in sorted((one, other)))
    if takes_part(device, phase, seed, low, []):
        assert takes_part(device, phase, seed, high, [])


def test_under_the_highest_bar_all_take_part_but_those_who_are_not_listed() -> None:
    assert takes_part("ann", PHASE, 0, EVERYBODY, [])
    assert takes_part("ann", PHASE, 0, EVERYBODY, ["ann"])
    assert not takes_part("ann", PHASE, 0, EVERYBODY, ["bob"])


@given(st.integers(1, 200), st.floats(0.001, 1))
def test_exactly_as_many_are_selected_as_algorithm_1_says(devices: int, fraction: float) -> None:
    assert len(chosen(FLEET[:devices], fraction)) == max(int(fraction * devices), 1)


@pytest.mark.parametrize(("devices", "fraction", "wanted"), [(10, 0.5, 5), (10, 0.1, 1), (3, 0.1, 1), (7, 0.99, 6)])
def test_how_many_are_selected_of_a_few(devices: int, fraction: float, wanted: int) -> None:
    assert len(chosen(FLEET[:devices], fraction)) == wanted


def test_those_who_are_not_listed_do_not_count_among_those_who_are_there() -> None:
    found = chosen(FLEET[:20], 0.5, FLEET[:4])
    assert len(found) == 2
    assert found < set(FLEET[:4])


def test_the_order_in_which_devices_came_does_not_matter() -> None:
    assert chosen(FLEET[:50], 0.3) == chosen(FLEET[:50][::-1], 0.3)


def test_another_round_and_another_seed_select_others() -> None:
    def half(phase: m.Phase, seed: int) -> frozenset[str]:
        bar = bar_for(FLEET, phase, seed, 0.5, [])
        return frozenset(device for device in FLEET if takes_part(device, phase, seed, bar, []))

    sets = {
        half(PHASE, 1),
        half(PHASE, 2),
        half(m.Phase("main", 1, 4, "train"), 1),
        half(m.Phase("b", 1, 3, "train"), 1),
    }
    assert len(sets) == 4


def test_where_nobody_is_there_whoever_comes_takes_part() -> None:
    assert bar_for([], PHASE, 0, 0.5, []) == EVERYBODY
    assert bar_for(["ann"], PHASE, 0, 0.5, ["bob"]) == EVERYBODY
