"""HPKE in base mode by the steps of RFC 9180, with HKDF's two steps written out: what the package is held to.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. The shared secret of X25519 is passed in. Pure.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

BASE = b"\x00"
KEM_ID, SUITE_ID = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"


def extract(salt: bytes, label: bytes, secret: bytes, suite: bytes) -> bytes:
    """LabeledExtract (RFC 9180, section 4; RFC 5869, 2.2)."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, "sha256")


def expand(key: bytes, label: bytes, info: bytes, length: int, suite: bytes) -> bytes:
    """LabeledExpand of at most one block (RFC 9180, section 4; RFC 5869, 2.3)."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labeled + b"\x01", "sha256")[:length]


def key_and_nonce(shared: bytes, encapsulated: bytes, recipient: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and base nonce (RFC 9180, 4.1 and 5.1) from the X25519 secret and the two public keys of 32 bytes."""
    prk = extract(b"", b"eae_prk", shared, KEM_ID)
    secret = expand(prk, b"shared_secret", encapsulated + recipient, 32, KEM_ID)
    context = BASE + extract(b"", b"psk_id_hash", b"", SUITE_ID) + extract(b"", b"info_hash", info, SUITE_ID)
    scheduled = extract(secret, b"secret", b"", SUITE_ID)
    return expand(scheduled, b"key", context, 32, SUITE_ID), expand(scheduled, b"base_nonce", context, 12, SUITE_ID)


def seal(shared: bytes, encapsulated: bytes, recipient: bytes, info: bytes, plain: bytes) -> bytes:
    """Single-shot Seal (RFC 9180, 6.1) without associated data: the encapsulated key, then the ciphertext."""
    key, nonce = key_and_nonce(shared, encapsulated, recipient, info)
    return encapsulated + ChaCha20Poly1305(key).encrypt(nonce, plain, b"")
