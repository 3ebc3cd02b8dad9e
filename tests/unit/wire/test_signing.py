"""Signatures: what was changed, in any bit, is refused."""

from __future__ import annotations

import pytest
from helpers.wire import ANN, EVE, core, right_or_refused
from hypothesis import given
from hypothesis import strategies as st

from floe import messages as m
from floe.errors import Refused
from floe.signing import from_text, sign, to_text, verify


def _manifest() -> bytes:
    envelope = m.Envelope(to="main", wrap="none", key="")
    return ANN.sign(
        m.Manifest(
            federation="floe", sender="ann", key=ANN.key, proof="", seq=1, core=core("plaintext"), envelope=envelope
        )
    )


def test_every_bit_of_a_manifest_that_is_flipped_is_noticed() -> None:
    payload = _manifest()
    for place in range(len(payload) * 8):
        changed = bytearray(payload)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(Refused):
            verify(bytes(changed), m.Manifest)


def test_every_byte_that_is_missing_or_doubled_is_noticed() -> None:
    payload = _manifest()
    for place in range(len(payload)):
        doubled = payload[: place + 1] + payload[place:]
        for changed in (payload[:place] + payload[place + 1 :], doubled):
            if changed != payload:
                with pytest.raises(Refused):
                    verify(changed, m.Manifest)


def test_a_signature_by_another_key_than_the_one_in_the_message_is_refused() -> None:
    status = m.Status(federation="floe", sender="ann", key=ANN.key, proof="", seq=1, state="idle")
    with pytest.raises(Refused, match="signature: the signature of 'ann' does not verify"):
        verify(sign(status, EVE.private), m.Status)


def test_a_signature_of_one_message_does_not_fit_another() -> None:
    first = ANN.sign(m.Status(federation="floe", sender="ann", key=ANN.key, proof="", seq=1, state="idle"))
    second = ANN.sign(m.Status(federation="floe", sender="ann", key=ANN.key, proof="", seq=2, state="idle"))
    with pytest.raises(Refused, match="signature"):
        verify(second[:-96] + first[-96:], m.Status)


def test_the_signature_is_the_last_member_and_nothing_of_the_rest_is_changed() -> None:
    status = m.Status(federation="floe", sender="ann", key=ANN.key, proof="", seq=1, state="idle")
    payload = ANN.sign(status)
    assert payload[:-96] + b"}" == m.encode(status)
    assert payload[-96:-88] == b',"sig":"'


@given(st.binary(max_size=100))
def test_from_text_is_the_inverse_of_to_text(raw: bytes) -> None:
    assert from_text(to_text(raw)) == raw


@given(st.text(max_size=20))
def test_a_text_that_is_read_is_the_only_spelling_of_its_bytes(text: str) -> None:
    with right_or_refused("malformed"):
        assert to_text(from_text(text)) == text
