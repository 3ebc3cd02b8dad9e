"""Signatures: what was changed, in any bit, is refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from helpers.wire import ANN, EVE, ROB, core, right_or_refused
from hypothesis import given
from hypothesis import strategies as st

from floe import messages as m
from floe.errors import Refused
from floe.identity import Identity
from floe.signing import from_text, public_key, public_text, short, sign, signature, to_text, verify, verify_bytes

SIGNERS = pytest.mark.parametrize("signer", [ANN, ROB], ids=["ed25519", "rsa-2048-pss"])


def _manifest(signer: Identity) -> bytes:
    envelope = m.Envelope(to="main", wrap="none", key="")
    header = {"federation": "floe", "sender": signer.name, "key": signer.key, "proof": "", "seq": 1}
    return signer.sign(m.Manifest(**header, core=core("plaintext"), envelope=envelope))


def _status(signer: Identity, seq: int = 1) -> m.Status:
    return m.Status(federation="floe", sender=signer.name, key=signer.key, proof="", seq=seq, state="idle")


@SIGNERS
def test_what_is_signed_verifies(signer: Identity) -> None:
    assert verify(signer.sign(_status(signer)), m.Status) == _status(signer)


@SIGNERS
def test_every_bit_of_a_manifest_that_is_flipped_is_noticed(signer: Identity) -> None:
    payload = _manifest(signer)
    for place in range(len(payload) * 8):
        changed = bytearray(payload)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(Refused):
            verify(bytes(changed), m.Manifest)


@SIGNERS
def test_every_byte_that_is_missing_or_doubled_is_noticed(signer: Identity) -> None:
    payload = _manifest(signer)
    for place in range(len(payload)):
        doubled = payload[: place + 1] + payload[place:]
        for changed in (payload[:place] + payload[place + 1 :], doubled):
            if changed != payload:
                with pytest.raises(Refused):
                    verify(changed, m.Manifest)


def test_a_signature_by_another_key_than_the_one_in_the_message_is_refused() -> None:
    for signer in (EVE, ROB):
        with pytest.raises(Refused, match="signature: the signature of 'ann' does not verify"):
            verify(sign(_status(ANN), signer.private), m.Status)
    with pytest.raises(Refused, match="signature: the signature of 'rob' does not verify"):
        verify(sign(_status(ROB), ANN.private), m.Status)


@pytest.mark.parametrize(("signer", "tail"), [(ANN, 96), (ROB, 352)], ids=["ed25519", "rsa-2048-pss"])
def test_a_signature_of_one_message_does_not_fit_another(signer: Identity, tail: int) -> None:
    first, second = signer.sign(_status(signer)), signer.sign(_status(signer, seq=2))
    with pytest.raises(Refused, match="does not verify"):
        verify(second[:-tail] + first[-tail:], m.Status)


@pytest.mark.parametrize(("signer", "tail"), [(ANN, 96), (ROB, 352)], ids=["ed25519", "rsa-2048-pss"])
def test_the_signature_is_the_last_member_and_nothing_of_the_rest_is_changed(signer: Identity, tail: int) -> None:
    payload = signer.sign(_status(signer))
    assert payload[:-tail] + b"}" == m.encode(_status(signer))
    assert payload[-tail : 8 - tail] == b',"sig":"'


@SIGNERS
def test_bytes_that_are_no_message_are_signed_for_themselves(signer: Identity) -> None:
    text = signer.sign_bytes(b"a")
    verify_bytes(text, signer.key, b"a")
    for changed in ((text, signer.key, b"b"), (text, EVE.key, b"a"), (EVE.sign_bytes(b"a"), signer.key, b"a")):
        with pytest.raises(Refused, match="signature: the signature does not verify"):
            verify_bytes(*changed)
    with pytest.raises(Refused, match="malformed"):
        verify_bytes(text + "=", signer.key, b"a")


@SIGNERS
def test_a_public_key_is_read_as_it_is_written(signer: Identity) -> None:
    assert public_key(signer.key) == signer.private.public_key()


def test_the_length_of_a_key_and_of_a_signature_is_what_the_contract_says() -> None:
    assert [len(signer.key) for signer in (ANN, ROB)] == [43, 392]
    assert [len(signature(b"", signer.private)) for signer in (ANN, ROB)] == [86, 342]


def test_keys_that_begin_alike_are_told_apart_by_their_short_form() -> None:
    other = generate_private_key(65537, 2048).public_key()
    assert public_text(other)[:40] == ROB.key[:40]
    assert len({short(public_text(other)), short(ROB.key), short(ANN.key)}) == 3
    assert short(ANN.key) == ANN.key[:8]


@given(st.binary(max_size=400) | st.integers(0, 293).map(lambda at: _cut_at(from_text(ROB.key), at)))
def test_what_is_read_as_a_key_is_its_only_spelling(raw: bytes) -> None:
    with right_or_refused("signature"):
        assert public_text(public_key(to_text(raw))) == to_text(raw)


def _cut_at(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 0x80]) + raw[at + 1 :]


@given(st.binary(max_size=100))
def test_from_text_is_the_inverse_of_to_text(raw: bytes) -> None:
    assert from_text(to_text(raw)) == raw


@given(st.text(max_size=20))
def test_a_text_that_is_read_is_the_only_spelling_of_its_bytes(text: str) -> None:
    with right_or_refused("malformed"):
        assert to_text(from_text(text)) == text
