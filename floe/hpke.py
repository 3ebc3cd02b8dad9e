"""HPKE (RFC 9180) in base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305: a few bytes for one reader.

Keys are passed in; what the sealed bytes belong to goes into `info`, so that they open nowhere else.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from floe.errors import Refused
from floe.signing import from_text, to_text

OVERHEAD = 48  # bytes: the encapsulated key and the tag
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def sealing_text(key: X25519PublicKey) -> str:
    """An X25519 public key (RFC 7748) as it stands in documents: base64url of its 32 bytes."""
    return to_text(key.public_bytes_raw())


def seal_to(recipient: str, plaintext: bytes, info: bytes) -> bytes:
    """Seal for whoever holds the private key of `recipient` (`sealing_text`). Raises `Refused("malformed")`."""
    raw = from_text(recipient)
    if len(raw) != 32:
        raise Refused("malformed", f"an X25519 key of {len(raw)} bytes")
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(raw), info=info)
    except ValueError:  # a point of small order
        raise Refused("malformed", "not a usable X25519 key") from None


def open_with(private: X25519PrivateKey, sealed: bytes, info: bytes) -> bytes:
    """The inverse of `seal_to`. Raises `Refused("unsealing")`."""
    try:
        return _SUITE.decrypt(sealed, private, info=info)
    except (InvalidTag, ValueError):
        raise Refused("unsealing", "sealed to another key, for something else, or altered") from None
