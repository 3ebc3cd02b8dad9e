"""HPKE of the package cryptography against RFC 9180's vectors, base mode, in the suite that Floe uses.

The RFC's ciphertexts have associated data, for which the package's `decrypt` has no room: so it opens what is sealed
under the vector's own key and nonce, and what it seals is opened by the RFC's steps, which are held to the vector.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from helpers.hpke import key_and_nonce

IDS = {"mode": 0x00, "kem_id": 0x0020, "kdf_id": 0x0001, "aead_id": 0x0003}
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
FILE = Path(cryptography_vectors.__file__).parent / "HPKE" / "test-vectors.json"


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    """The one vector of the suite; bytes in place of hexadecimal."""
    found = [v for v in json.loads(FILE.read_text()) if all(v[name] == value for name, value in IDS.items())]
    (one,) = found
    return {name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in one.items()}


def test_the_key_schedule_of_our_steps_is_that_of_the_vector(vector: dict[str, Any]) -> None:
    ephemeral = X25519PrivateKey.from_private_bytes(vector["skEm"])
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(vector["pkRm"]))
    assert key_and_nonce(shared, vector["enc"], vector["pkRm"], vector["info"]) == (vector["key"], vector["base_nonce"])


def test_the_vector_s_key_and_nonces_open_its_ciphertexts(vector: dict[str, Any]) -> None:
    for encryption in vector["encryptions"]:
        nonce, sealed, data, plain = (bytes.fromhex(encryption[name]) for name in ("nonce", "ct", "aad", "pt"))
        assert ChaCha20Poly1305(vector["key"]).decrypt(nonce, sealed, data) == plain
    assert len(vector["encryptions"]) == 257
    assert bytes.fromhex(vector["encryptions"][0]["nonce"]) == vector["base_nonce"]


def test_the_package_opens_what_is_sealed_under_the_vector_s_key(vector: dict[str, Any]) -> None:
    """On the wire: 32 bytes of encapsulated key, then the ciphertext with its tag of 16."""
    private, plain = X25519PrivateKey.from_private_bytes(vector["skRm"]), bytes(range(32))
    sealed = vector["enc"] + ChaCha20Poly1305(vector["key"]).encrypt(vector["base_nonce"], plain, b"")
    assert SUITE.decrypt(sealed, private, vector["info"]) == plain
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        for bad in (changed, sealed[:place]):
            with pytest.raises((InvalidTag, ValueError)):
                SUITE.decrypt(bad, private, vector["info"])
    with pytest.raises(InvalidTag):
        SUITE.decrypt(sealed, private, vector["info"] + b"?")
    with pytest.raises(InvalidTag):
        SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(vector["skEm"]), vector["info"])


def test_what_the_package_seals_opens_by_the_steps_of_the_rfc(vector: dict[str, Any]) -> None:
    private, plain = X25519PrivateKey.from_private_bytes(vector["skRm"]), bytes(range(32))
    sealed = SUITE.encrypt(plain, private.public_key(), vector["info"])
    shared = private.exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
    key, nonce = key_and_nonce(shared, sealed[:32], vector["pkRm"], vector["info"])
    assert ChaCha20Poly1305(key).decrypt(nonce, sealed[32:], b"") == plain
    assert len(sealed) == 32 + len(plain) + 16


def test_no_two_sealings_have_an_encapsulated_key_in_common(vector: dict[str, Any]) -> None:
    public = X25519PublicKey.from_public_bytes(vector["pkRm"])
    assert len({SUITE.encrypt(b"", public, b"")[:32] for _ in range(20)}) == 20
