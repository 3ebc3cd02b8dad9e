"""What a transfer is: ranges, sizes, names, what is missing."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from helpers.wire import core, right_or_refused
from hypothesis import given
from hypothesis import strategies as st

from floe import messages as m
from floe import transfer
from floe.errors import Refused

KIB, MIB = 1024, 1024 * 1024


@given(st.sets(st.integers(0, 1023)))
def test_ranges_of_indices_give_the_indices_back(indices: set[int]) -> None:
    assert list(transfer.from_ranges(transfer.to_ranges(indices), 1024)) == sorted(indices)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4))
def test_any_ranges_are_refused_or_name_each_index_once_and_in_bounds(ranges: list[tuple[int, int]]) -> None:
    with right_or_refused("malformed"):
        found = list(transfer.from_ranges(tuple(ranges), 10))
        assert found == sorted(set(found))
        assert all(0 <= index < 10 for index in found)


@given(st.integers(0, 2**40))
def test_chunks_are_at_most_1024_and_none_is_empty(size: int) -> None:
    chunk = transfer.chunk_bytes_for(size)
    count = transfer.chunk_count(size, chunk)
    assert count <= m.MAX_CHUNKS
    assert (count - 1) * chunk < size <= count * chunk or size == count == 0


@pytest.mark.parametrize(
    ("size", "kib", "count"),
    [(0, 64, 0), (1, 64, 1), (64 * MIB, 64, 1024), (64 * MIB + 1, 128, 513), (128 * MIB, 128, 1024)],
)
def test_chunks_are_64_kib_up_to_64_mib_and_then_twice_as_large(size: int, kib: int, count: int) -> None:
    assert (transfer.chunk_bytes_for(size), transfer.chunk_count(size, kib * KIB)) == (kib * KIB, count)


@given(st.integers(1, 200_000))
def test_the_lengths_of_the_chunks_add_up_to_the_size(size: int) -> None:
    mine = core(size=size, chunks=["0" * 64] * transfer.chunk_count(size, 64 * KIB))
    assert sum(transfer.chunk_length(mine, i) for i in range(len(mine.chunks))) == size


def test_a_core_of_exactly_the_cap_is_taken_and_one_byte_more_is_oversized() -> None:
    transfer.check_core(core(), 3)
    with pytest.raises(Refused, match="oversized: 3 bytes, at most 2 accepted"):
        transfer.check_core(core(), 2)


def test_the_name_changes_with_every_field() -> None:
    others = {"federation": "o", "lineage": "o", "epoch": 2, "round": 9, "task": "sums", "kind": "model", "sender": "o",
              "base": "", "suite": "fernet", "salt": "6" * 32, "commitment": "c" * 64, "size": 4, "chunk_size": 4,
              "chunks": [], "meta": "x"}  # fmt: skip
    assert others.keys() == set(m.Core.__struct_fields__)
    assert len({transfer.name_of(core(**{field: value})) for field, value in others.items()}) == len(others)


def _two() -> m.Core:
    hashes = [hashlib.sha256(bytes([i]) * n).hexdigest() for i, n in ((0, 64 * KIB), (1, 1))]
    return core("plaintext", size=64 * KIB + 1, chunks=hashes)


def test_a_chunk_is_new_then_known_and_never_another() -> None:
    assembly = transfer.Assembly(_two())
    assert assembly.check(1, b"\1")
    assembly.have.add(1)
    assert not assembly.check(1, b"\1")
    for index, sealed in ((0, b"\2" * 64 * KIB), (0, b"\0"), (2, b"\1")):
        with pytest.raises(Refused, match="chunk"):
            assembly.check(index, sealed)


def test_a_chunk_of_the_right_hash_and_the_wrong_length_is_refused() -> None:
    long = core("plaintext", chunks=[hashlib.sha256(b"four").hexdigest()])
    with pytest.raises(Refused, match="chunk: chunk 0 of 4 bytes, not 3"):
        transfer.Assembly(long).check(0, b"four")


def test_what_is_missing_is_everything_that_is_not_there() -> None:
    assembly = transfer.Assembly(_two())
    assert (assembly.missing(), assembly.complete) == (((0, 2),), False)
    assembly.have.update({0, 1})
    assert (assembly.missing(), assembly.complete) == ((), True)


def test_one_want_asks_for_at_most_512_ranges() -> None:
    mine = msgspec.structs.replace(_two(), chunks=("0" * 64,) * 1100)
    missing = transfer.Assembly(mine, set(range(0, 1100, 2))).missing()
    assert (len(missing), missing[-1]) == (512, (1023, 1024))
