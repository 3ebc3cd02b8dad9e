"""Who takes part: the same answer everywhere, and as many as Algorithm 1 asks for."""

from __future__ import annotations

import hashlib

import pytest
from helpers.wire import PHASE, names, phases
from hypothesis import given
from hypothesis import strategies as st

from floe import messages as m
from floe.selection import draw_for, takes_part


def test_the_bytes_that_are_hashed_are_those_of_the_contract() -> None:
    text = b"floe-v1 select\n42\nmain\n1\n3\n7\nann"
    drawn = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    assert takes_part("ann", PHASE, 42, 7, drawn + 1e-9, [])
    assert not takes_part("ann", PHASE, 42, 7, drawn - 1e-9, [])


@given(names, phases, st.integers(0, 2**31), st.integers(0, 10_000), st.floats(0.001, 1), st.floats(0.001, 1))
def test_who_is_in_a_share_is_in_every_larger_one(
    device: str, phase: m.Phase, seed: int, draw: int, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    if takes_part(device, phase, seed, draw, small, []):
        assert takes_part(device, phase, seed, draw, large, [])


def test_with_the_whole_fraction_all_take_part_but_those_who_are_not_listed() -> None:
    assert takes_part("ann", PHASE, 0, 0, 1.0, [])
    assert takes_part("ann", PHASE, 0, 0, 1.0, ["ann"])
    assert not takes_part("ann", PHASE, 0, 0, 1.0, ["bob"])


@pytest.mark.parametrize(("devices", "fraction", "wanted"), [(10, 0.5, 5), (10, 0.1, 1), (3, 0.1, 1), (7, 0.99, 6)])
def test_the_draw_selects_exactly_as_many_as_algorithm_1_says(devices: int, fraction: float, wanted: int) -> None:
    fleet = [f"d{i}" for i in range(devices)]
    draw = draw_for(fleet, PHASE, 5, fraction, [])
    assert sum(takes_part(d, PHASE, 5, draw, fraction, []) for d in fleet) == wanted


def test_another_round_and_another_seed_select_others() -> None:
    fleet = [f"d{i}" for i in range(200)]

    def chosen(phase: m.Phase, seed: int) -> set[str]:
        return {d for d in fleet if takes_part(d, phase, seed, 0, 0.5, [])}

    sets = [chosen(PHASE, 1), chosen(PHASE, 2), chosen(m.Phase("main", 1, 4, "train"), 1)]
    assert all(60 < len(one) < 140 for one in sets)
    assert len(set(map(frozenset, sets))) == 3


def test_nobody_to_draw_from_is_draw_zero() -> None:
    assert draw_for([], PHASE, 0, 0.5, []) == 0
    assert draw_for(["ann"], PHASE, 0, 0.5, ["bob"]) == 0
