"""Suites: what is sealed opens, and only as what it was sealed to be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from helpers.wire import SEALED, SECRET, SUITES, core
from hypothesis import given
from hypothesis import strategies as st

from floe import messages as m
from floe.errors import Refused
from floe.seal import sealed_length, sealer, unwrap_shared, wrap_shared
from floe.signing import to_text

KEY = bytes(range(64, 96))
TWO = {"size": 100_000, "chunks": ["0" * 64] * 2}
OTHERS: dict[str, Any] = {
    "federation": "other", "lineage": "mine", "epoch": 2, "round": 4, "task": "evaluate", "kind": "model",
    "sender": "eve", "base": "", "suite": "plaintext", "salt": "6" * 32, "size": 4, "chunk_size": 131_072,
}  # fmt: skip
UNBOUND = {"chunks", "meta", "commitment"}


@pytest.mark.parametrize("suite", SUITES)
@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_a_sealed_chunk_opens_and_has_the_length_that_is_told(suite: m.Suite, chunk: bytes, index: int) -> None:
    seal = sealer(core(suite), KEY)
    sealed = seal.seal(index, chunk)
    assert len(sealed) == sealed_length(suite, len(chunk))
    assert seal.open(index, sealed) == chunk


@pytest.mark.parametrize("suite", SUITES)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_a_report_that_was_sealed_opens(suite: m.Suite, text: str) -> None:
    seal = sealer(core(suite), KEY)
    assert seal.open_meta(seal.seal_meta(text)) == text


@pytest.mark.parametrize("suite", SEALED)
def test_chunks_that_change_places_do_not_open(suite: m.Suite) -> None:
    seal = sealer(core(suite, **TWO), KEY)
    first = seal.seal(0, b"first")
    with pytest.raises(Refused, match="unsealing: chunk 1 does not open"):
        seal.open(1, first)


@pytest.mark.parametrize("suite", SEALED)
@pytest.mark.parametrize("field", OTHERS)
def test_a_chunk_of_a_transfer_that_differs_in_one_field_does_not_open(suite: m.Suite, field: str) -> None:
    sealed = sealer(core(suite), KEY).seal(0, b"abc")
    other = {field: OTHERS[field]} if field != "suite" else {"suite": SEALED[SEALED.index(suite) - 1]}
    with pytest.raises(Refused, match="unsealing"):
        sealer(core(**({"suite": suite} | other)), KEY).open(0, sealed)


def test_every_field_of_a_core_is_bound_or_said_not_to_be() -> None:
    assert set(m.Core.__struct_fields__) == set(OTHERS) | UNBOUND


@pytest.mark.parametrize("suite", SEALED)
def test_a_chunk_of_a_transfer_with_more_chunks_does_not_open(suite: m.Suite) -> None:
    sealed = sealer(core(suite), KEY).seal(0, b"abc")
    with pytest.raises(Refused, match="unsealing"):
        sealer(core(suite, chunks=["0" * 64] * 2), KEY).open(0, sealed)


@pytest.mark.parametrize("suite", SEALED)
def test_a_chunk_that_is_cut_or_altered_anywhere_does_not_open(suite: m.Suite) -> None:
    seal = sealer(core(suite), KEY)
    sealed = seal.seal(0, b"abc")
    for place in range(len(sealed)):
        altered = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        for bad in (sealed[:place], altered):
            with pytest.raises(Refused, match="unsealing"):
                seal.open(0, bad)


@pytest.mark.parametrize("suite", SEALED)
def test_a_report_does_not_open_as_a_chunk_nor_a_chunk_as_a_report(suite: m.Suite) -> None:
    seal = sealer(core(suite), KEY)
    with pytest.raises(Refused, match="unsealing"):
        seal.open_meta(to_text(seal.seal(0, b"{}")))


@pytest.mark.parametrize("suite", SEALED)
def test_equal_bytes_are_sealed_differently_in_every_place_and_transfer(suite: m.Suite) -> None:
    one, other = sealer(core(suite, **TWO), KEY), sealer(core(suite, **TWO, salt="7" * 32), KEY)
    assert len({one.seal(0, b"abc"), one.seal(1, b"abc"), other.seal(0, b"abc")}) == 3


def test_the_content_key_is_wrapped_for_one_recipient_of_one_transfer() -> None:
    mine = core()
    envelope = wrap_shared(mine, KEY, SECRET, "main")
    assert unwrap_shared(mine, envelope, SECRET) == KEY
    for changed, secret, to in ((core(round=4), SECRET, "main"), (mine, bytes(32), "main"), (mine, SECRET, "other")):
        with pytest.raises(Refused, match="unsealing"):
            unwrap_shared(changed, msgspec.structs.replace(envelope, to=to), secret)


def test_the_envelope_may_be_renewed_without_the_transfer() -> None:
    mine = core()
    assert unwrap_shared(mine, wrap_shared(mine, KEY, SECRET, "main"), SECRET) == unwrap_shared(
        mine, wrap_shared(mine, KEY, SECRET, "other"), SECRET
    )
