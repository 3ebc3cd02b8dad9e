"""Messages: encode and decode are inverses; what is not one is refused with its reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from helpers.wire import ANN, PHASE, answers, core, right_or_refused, statuses, wants
from hypothesis import given
from hypothesis import strategies as st

from floe import messages as m
from floe.errors import Refused
from floe.signing import verify

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(statuses | wants | answers)
def test_a_message_that_is_signed_and_verified_is_the_same(message: m.Message) -> None:
    assert verify(ANN.sign(message), type(message)) == message


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_never_crash(payload: bytes) -> None:
    with pytest.raises(Refused):
        m.decode(payload, m.Want)


@given(wants, st.sampled_from(m.Want.__struct_fields__), json_values)
def test_any_value_in_any_field_is_read_or_refused(want: m.Want, field: str, value: Any) -> None:
    fields = json.loads(m.encode(want)) | {field: value}
    with right_or_refused("malformed", "unknown-version"):
        found = m.decode(json.dumps(fields).encode(), m.Want)
        assert json.loads(m.encode(found))[field] == value


def test_a_message_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    status = m.encode(m.Status(federation="f", sender="a", key=ANN.key, proof="", seq=1, state="idle"))
    padded = status[:-1] + b" " * (m.MAX_MESSAGE_BYTES - len(status)) + b"}"
    assert m.decode(padded, m.Status).state == "idle"
    with pytest.raises(Refused, match="oversized"):
        m.decode(padded + b" ", m.Status)


def test_the_members_of_a_default_may_be_absent() -> None:
    fields = json.loads(m.encode(m.Status(federation="f", sender="a", key=ANN.key, proof="", seq=1, state="idle")))
    del fields["phase"], fields["software"]
    assert m.decode(json.dumps(fields).encode(), m.Status).phase is None


def test_a_surrogate_pair_is_a_character_and_half_of_one_is_malformed() -> None:
    assert m.parse_json(b'["\\ud83d\\ude00"]') == ["\U0001f600"]
    for text in (b'["\\ud83d"]', b'["\\uDE00"]', b'{"\\udfff":1}', b'["\\ude00\\ud83d"]'):
        with pytest.raises(Refused, match="malformed"):
            m.parse_json(text)


def test_an_escape_of_the_backslash_is_no_surrogate() -> None:
    assert m.parse_json(b'["\\\\ud800"]') == ["\\ud800"]


def test_an_error_of_a_peer_that_is_very_long_is_cut() -> None:
    with pytest.raises(Refused) as refusal:
        m.decode(json.dumps({"floe": "9" * 10_000}).encode(), m.Want)
    assert len(str(refusal.value)) < 200


def test_canonical_json_of_a_core_does_not_depend_on_the_order_of_its_members() -> None:
    fields = msgspec.to_builtins(core())
    assert m.canonical(fields) == m.canonical(dict(reversed(fields.items())))


@pytest.mark.parametrize(("round_", "ok"), [(0, True), (2**31, True), (-1, False), (2**31 + 1, False), (True, False)])
def test_a_phase_has_a_round_of_31_bits(round_: int, ok: bool) -> None:
    fields = msgspec.to_builtins(PHASE) | {"round": round_}
    if ok:
        assert msgspec.convert(fields, m.Phase).round == round_
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(fields, m.Phase)
