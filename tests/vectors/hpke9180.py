"""HPKE as RFC 9180 says it, in base mode, from X25519, HMAC and ChaCha20-Poly1305 alone: imports nothing of Floe.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, one message, no associated data. `seal` is told its
ephemeral key, so that golden files can be made again; whoever seals in earnest draws it at random.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEM, KDF, AEAD = 0x0020, 0x0001, 0x0003
KEM_SUITE = b"KEM" + struct.pack(">H", KEM)
HPKE_SUITE = b"HPKE" + struct.pack(">3H", KEM, KDF, AEAD)


def seal(recipient: bytes, plaintext: bytes, info: bytes, ephemeral: X25519PrivateKey) -> bytes:
    """Section 6.1, SealBase: enc, ciphertext and tag."""
    enc = ephemeral.public_key().public_bytes_raw()
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    key, nonce = _schedule(_shared(dh, enc, recipient), info)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, plaintext, b"")


def open_sealed(private: X25519PrivateKey, sealed: bytes, info: bytes) -> bytes:
    """Section 6.1, OpenBase. Raises `ValueError` or `InvalidTag`."""
    enc = sealed[:32]
    dh = private.exchange(X25519PublicKey.from_public_bytes(enc))
    key, nonce = _schedule(_shared(dh, enc, private.public_key().public_bytes_raw()), info)
    return ChaCha20Poly1305(key).decrypt(nonce, sealed[32:], b"")


def _shared(dh: bytes, enc: bytes, recipient: bytes) -> bytes:
    """Section 4.1, ExtractAndExpand of the KEM."""
    return _expand(_extract(b"", b"eae_prk", dh, KEM_SUITE), b"shared_secret", enc + recipient, 32, KEM_SUITE)


def _schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Section 5.1, KeySchedule in mode base: the key, and the nonce of the first message."""
    context = b"\0" + _extract(b"", b"psk_id_hash", b"", HPKE_SUITE) + _extract(b"", b"info_hash", info, HPKE_SUITE)
    secret = _extract(shared, b"secret", b"", HPKE_SUITE)
    return _expand(secret, b"key", context, 32, HPKE_SUITE), _expand(secret, b"base_nonce", context, 12, HPKE_SUITE)


def _extract(salt: bytes, label: bytes, ikm: bytes, suite: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(prk: bytes, label: bytes, info: bytes, length: int, suite: bytes) -> bytes:
    """RFC 5869, 2.3, for at most 32 bytes: one block is enough."""
    assert length <= hashlib.sha256().digest_size
    labelled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labelled + b"\1", "sha256")[:length]
