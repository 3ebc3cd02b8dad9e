"""Signatures over the exact bytes of a message: Ed25519, or RSA-2048-PSS. Pure: the key is passed in.

The key is of one algorithm and fixes it; no field of a message chooses.

A signed payload is the message's JSON object with one more member at its end, `"sig"`. Signed are the bytes
`floe-v1 message` LF, then the object as it was before that member was added (`PROTOCOL.md`, "Signatures").
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Literal, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from floe.errors import Refused
from floe.messages import MAX_MESSAGE_BYTES, M, Message, decode, encode

Algorithm = Literal["ed25519", "rsa-2048-pss"]
PrivateKey: TypeAlias = Ed25519PrivateKey | RSAPrivateKey
PublicKey: TypeAlias = Ed25519PublicKey | RSAPublicKey

DOMAIN = b"floe-v1 message\n"
RSA_BITS = 2048
RSA_EXPONENT = 65537
# The SubjectPublicKeyInfo of such a key in DER (RFC 3279, 2.3.1): all but the modulus is the same in each.
_RSA_HEAD = bytes.fromhex("30820122300d06092a864886f70d01010105000382010f003082010a0282010100")
_RSA_TAIL = bytes.fromhex("0203010001")
_RSA_HEAD_CHARACTERS = len(_RSA_HEAD) * 4 // 3
_PADDING = PSS(MGF1(SHA256()), 32)
_SIGNATURE = re.compile(rb',"sig":"([A-Za-z0-9_-]{86}|[A-Za-z0-9_-]{342})"\}\Z')
_LONGEST_TAIL = 352


def to_text(raw: bytes) -> str:
    """Base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The inverse of `to_text`; raises `Refused("malformed", ...)`, also for a second spelling of the same bytes."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise Refused("malformed", f"not base64url: {text[:40]!r}") from None
    if to_text(raw) != text:
        raise Refused("malformed", f"not the canonical base64url of its bytes: {text[:40]!r}")
    return raw


def public_text(key: PublicKey) -> str:
    """A public key as it stands in a message: base64url of the 32 bytes of an Ed25519 key (RFC 8032, 5.1.5), or of the
    DER SubjectPublicKeyInfo of an RSA key (RFC 5280, 4.1.2.7).
    """
    if isinstance(key, RSAPublicKey):
        return to_text(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return to_text(key.public_bytes_raw())


def public_key(text: str) -> PublicKey:
    """The inverse of `public_text`. Raises `Refused`: `malformed`, and `signature` for what is neither kind of key."""
    raw = from_text(text)
    if len(raw) == 32:
        return Ed25519PublicKey.from_public_bytes(raw)
    modulus = raw[len(_RSA_HEAD) : -len(_RSA_TAIL)]
    if raw == _RSA_HEAD + modulus + _RSA_TAIL and len(modulus) == RSA_BITS // 8 and modulus[0] & 0x80:
        return RSAPublicNumbers(RSA_EXPONENT, int.from_bytes(modulus)).public_key()
    raise Refused("signature", f"a key of {len(raw)} bytes, neither Ed25519 nor RSA of 2048 bits with exponent 65537")


def short(key: str) -> str:
    """The first 8 characters of a public key in which it differs from others: all RSA keys begin alike."""
    start = _RSA_HEAD_CHARACTERS if len(key) > _RSA_HEAD_CHARACTERS else 0
    return key[start : start + 8]


def signature(data: bytes, key: PrivateKey) -> str:
    """Base64url of the signature of some bytes: Ed25519 (RFC 8032), or RSASSA-PSS with SHA-256, MGF1 with SHA-256 and
    32 bytes of salt (RFC 8017, 8.1).
    """
    if isinstance(key, RSAPrivateKey):
        return to_text(key.sign(data, _PADDING, SHA256()))
    return to_text(key.sign(data))


def sign(message: Message, key: PrivateKey) -> bytes:
    """The payload to publish: the message's JSON with its signature as the last member."""
    unsigned = encode(message)
    return unsigned[:-1] + f',"sig":"{signature(DOMAIN + unsigned, key)}"}}'.encode()


def verify(payload: bytes, expected: type[M]) -> M:
    """Parse a signed payload, checked against the key that it names.

    Whether that key may speak for that sender is the caller's question. Raises `Refused`: `oversized`, `malformed`,
    `unknown-version`, `signature`.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise Refused("oversized", f"message of {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} allowed")
    match = _SIGNATURE.search(payload[-_LONGEST_TAIL:])
    if match is None:
        raise Refused("signature", "the message carries no signature")
    unsigned = payload[: len(payload) - len(match[0])] + b"}"
    message = decode(unsigned, expected)
    if not _verifies(match[1].decode(), message.key, DOMAIN + unsigned):
        raise Refused("signature", f"the signature of {message.sender!r} does not verify")
    return message


def verify_bytes(signature: str, key: str, data: bytes) -> None:
    """That a signature in base64url over these very bytes is by a key as it stands in messages.

    Raises `Refused`: `malformed`, `signature`.
    """
    if not _verifies(signature, key, data):
        raise Refused("signature", "the signature does not verify")


def _verifies(signature: str, key: str, data: bytes) -> bool:
    raw, public = from_text(signature), public_key(key)
    try:
        if isinstance(public, RSAPublicKey):
            public.verify(raw, data, _PADDING, SHA256())
        else:
            public.verify(raw, data)
    except InvalidSignature:
        return False
    return True
