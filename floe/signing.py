"""Signatures over the exact bytes of a message. Pure: the key is passed in.

A signed payload is the message's JSON object with one more member at its end, `"sig"`. Signed are the bytes
`floe-v1 message` LF, then the object as it was before that member was added (`PROTOCOL.md`, "Signatures").
"""

from __future__ import annotations

import base64
import binascii
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from floe.errors import Refused
from floe.messages import MAX_MESSAGE_BYTES, M, Message, decode, encode

DOMAIN = b"floe-v1 message\n"
_SIGNATURE = re.compile(rb',"sig":"([A-Za-z0-9_-]{86})"\}\Z')


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


def public_text(key: Ed25519PublicKey) -> str:
    """An Ed25519 public key as it stands in a message: base64url of its 32 bytes (RFC 8032, 5.1.5)."""
    return to_text(key.public_bytes_raw())


def sign(message: Message, key: Ed25519PrivateKey) -> bytes:
    """The payload to publish: the message's JSON with its Ed25519 signature (RFC 8032) as the last member."""
    unsigned = encode(message)
    signature = to_text(key.sign(DOMAIN + unsigned))
    return unsigned[:-1] + f',"sig":"{signature}"}}'.encode()


def verify(payload: bytes, expected: type[M]) -> M:
    """Parse a signed payload, checked against the key that it names.

    Whether that key may speak for that sender is the caller's question. Raises `Refused`: `oversized`, `malformed`,
    `unknown-version`, `signature`.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise Refused("oversized", f"message of {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} allowed")
    match = _SIGNATURE.search(payload[-100:])
    if match is None:
        raise Refused("signature", "the message carries no signature")
    unsigned = payload[: len(payload) - len(match[0])] + b"}"
    message = decode(unsigned, expected)
    try:
        public = Ed25519PublicKey.from_public_bytes(from_text(message.key))
        public.verify(from_text(match[1].decode()), DOMAIN + unsigned)
    except (InvalidSignature, ValueError):
        raise Refused("signature", f"the signature of {message.sender!r} does not verify") from None
    return message


def verify_bytes(signature: str, key: str, data: bytes) -> None:
    """That a signature in base64url over these very bytes is by a key in base64url. Raises `Refused("signature")`."""
    try:
        Ed25519PublicKey.from_public_bytes(from_text(key)).verify(from_text(signature), data)
    except (InvalidSignature, ValueError):
        raise Refused("signature", "the signature does not verify") from None
