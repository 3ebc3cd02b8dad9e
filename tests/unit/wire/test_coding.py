"""Numbers in fewer bytes: how far a coded value may be from what it was, and that chance takes no side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floe.coding import (
    BLOCK,
    LARGEST_HALF,
    LEAST_HALF,
    Coding,
    can_code,
    coded,
    coded_bytes,
    decoded,
    exponent_of,
    generator,
    in_half_range,
    is_half,
    largest_of,
    to_half,
)
from floe.errors import Refused

Floats = npt.NDArray[np.float32]
TINY = float(np.finfo(np.float32).tiny)
any_floats = hnp.arrays(
    np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)
spread = st.integers(0, 2**32 - 1).map(
    lambda seed: (np.random.default_rng(seed).normal(size=seed % 3000 + 1) * 10.0 ** (seed % 60 - 30)).astype(
        np.float32
    )
)

near = st.integers(0, 2**32 - 1).map(  # nearly all of them where float16 reaches
    lambda seed: (np.random.default_rng(seed).normal(size=seed % 3000 + 1) * 10.0 ** (seed % 7 - 3)).astype(np.float32)
)


def again(values: Floats, coding: Coding, *key: str | int) -> Floats:
    exponent = exponent_of(largest_of(values), coding)
    data = coded(values, coding, exponent, generator(*key))
    assert len(data) == coded_bytes(len(values), coding)
    return decoded(data, len(values), coding, exponent)


def scales(values: Floats) -> Floats:
    """The scale of every value, by hand."""
    blocks = [values[at : at + BLOCK] for at in range(0, len(values), BLOCK)]
    return np.concatenate([np.full(len(b), np.abs(b).max() / np.float32(127), np.float32) for b in blocks])


@settings(max_examples=200)
@given(any_floats | spread, st.integers(0, 99))
def test_a_value_in_8_bits_is_less_than_one_scale_off(values: Floats, seed: int) -> None:
    assume(can_code(largest_of(values)))
    off = np.abs(values.astype(np.float64) - again(values, "int8", seed))
    one = scales(values).astype(np.float64)
    assert (off <= np.where(one < TINY, 127 * TINY, one * (1 + 1e-5))).all()


def test_8_bits_by_hand() -> None:
    values = np.array([127.0, -127.0, 3.0, 0.0, 2.5], np.float32)
    found = {tuple(again(values, "int8", seed).tolist()) for seed in range(40)}
    assert found == {(127.0, -127.0, 3.0, 0.0, 2.0), (127.0, -127.0, 3.0, 0.0, 3.0)}


def test_a_block_has_its_own_scale_and_one_of_nothing_is_nothing() -> None:
    values = np.concatenate([np.full(BLOCK, 127e6), np.full(BLOCK, 1e-6), np.zeros(BLOCK), [5.0]]).astype(np.float32)
    np.testing.assert_allclose(again(values, "int8", 1), values, rtol=1e-6)


def test_the_mean_of_many_roundings_is_the_value() -> None:
    values = np.linspace(-1, 1, 500, dtype=np.float32)
    mean = np.mean([again(values, "int8", seed) for seed in range(2000)], axis=0)
    # The deviation of one rounding is at most half a scale, so that of the mean at most scale / 2 / sqrt(2000).
    assert np.abs(mean - values).max() < 5 * (1 / 127) / 2 / np.sqrt(2000)


@given(hnp.arrays(np.float16, st.integers(1, 40), elements=st.floats(width=16, allow_nan=False, allow_infinity=False)))
def test_what_float16_has_is_exact(values: npt.NDArray[np.float16]) -> None:
    whole = values.astype(np.float32)
    assert is_half(whole)
    assert again(whole, "float16").tobytes() == whole.tobytes()
    assert to_half(whole, generator("x")).tobytes() == whole.tobytes()


@settings(max_examples=200)
@given(any_floats | spread)
def test_in_float16_no_value_of_any_size_is_further_off_than_2_to_minus_11_of_the_largest(values: Floats) -> None:
    largest = largest_of(values)
    assume(can_code(largest))
    off = np.abs(values.astype(np.float64) - again(values, "float16"))
    assert off.max() <= 2.0**-11 * largest + 2.0**-150  # and what a float32 that small rounds


def test_the_exponent_is_that_of_the_largest_where_float16_does_not_reach() -> None:
    ends = (0.0, LEAST_HALF, 1.0, LARGEST_HALF, 2.0**-15, 2.0**-149, 65536.0, 1e38)
    assert [exponent_of(end, "float16") for end in ends] == [0, 0, 0, 0, -14, -148, 17, 127]
    assert [exponent_of(end, "int8") for end in ends] == [0] * len(ends)


@given(any_floats)
def test_float32_is_exact(values: Floats) -> None:
    assert again(values, "float32").tobytes() == values.tobytes()


@settings(max_examples=200)
@given(near, st.integers(0, 99))
def test_rounding_to_half_goes_to_a_neighbour_and_no_further_than_2_to_minus_10_of_the_largest(
    values: Floats, seed: int
) -> None:
    largest = float(np.abs(values).max())
    assume(in_half_range(largest))
    found = to_half(values, generator(seed))
    assert is_half(found)
    assert np.abs(found.astype(np.float64) - values).max() <= 2.0**-10 * largest
    np.testing.assert_array_equal(np.sign(found) * np.sign(values) >= 0, np.ones(len(values), bool))


def test_the_mean_of_many_roundings_to_half_is_the_value() -> None:
    values = np.full(20_000, 1.0 + 2.0**-13, np.float32)  # an eighth of the way from 1 to the next float16
    found = to_half(values, generator("many"))
    assert set(found.tolist()) == {1.0, 1.0 + 2.0**-10}
    assert abs(float((found > 1).mean()) - 0.125) < 5 * np.sqrt(0.125 * 0.875 / len(values))


def test_what_is_in_the_range_of_float16() -> None:
    assert [in_half_range(x) for x in (0.0, LEAST_HALF, 1.0, LARGEST_HALF)] == [True] * 4
    assert [in_half_range(x) for x in (LEAST_HALF * 0.999, 65505.0, np.inf, np.nan)] == [False] * 4


def test_what_is_not_finite_or_nearly_so_is_not_coded() -> None:
    for odd in (np.nan, np.inf, -np.inf, 3.4e38):
        assert not can_code(largest_of(np.array([1.0, odd], np.float32)))
    assert can_code(largest_of(np.array([1.0, 0.0], np.float32)))


def test_chance_depends_on_every_part_of_its_key() -> None:
    drawn = {tuple(generator(*key).random(3)) for key in [("a", 1, "b"), ("a", 1, "c"), ("a", 2, "b"), ("b", 1, "b")]}
    assert len(drawn) == 4
    assert generator("a", 1).random() == generator("a", 1).random()


def refused(data: bytes, elements: int, coding: Coding, exponent: int = 0) -> str:
    with pytest.raises(Refused) as refusal:
        decoded(data, elements, coding, exponent)
    assert refusal.value.reason == "weights"
    return refusal.value.detail


def test_numbers_that_are_none_are_refused() -> None:
    def scale(value: float) -> bytes:
        return np.array([value], "<f4").tobytes() + bytes(2)

    assert [refused(scale(x), 2, "int8") for x in (np.nan, np.inf, -1.0)] == ["a scale is negative or not finite"] * 3
    assert "a step of -128" in refused(np.array([1.0], "<f4").tobytes() + b"\x80\0", 2, "int8")
    assert "not finite" in refused(b"\x00\x7c", 1, "float16")
    assert "not finite" in refused(b"\x00\x40", 1, "float16", 127)
    assert "not finite" in refused(np.array([np.nan], "<f4").tobytes(), 1, "float32")
