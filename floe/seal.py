"""Suites: seal and open the chunks of one transfer, and wrap its content key. Keys are passed in; nothing is kept.

Every transfer has a random 32-byte content key. From it, bound to all that the transfer is, HKDF-SHA256 (RFC 5869)
derives a chunk key, a meta key and a commitment. Nonces are counters: a key seals one transfer and no more
(`PROTOCOL.md`, "Sealing").
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from floe.errors import Refused
from floe.hpke import OVERHEAD, open_with, seal_to
from floe.messages import Core, Envelope, Name, Suite, canonical
from floe.signing import from_text, to_text

KEY_BYTES = 32
TAG_BYTES = 16
META_INDEX = 2**64 - 1
_AEAD: dict[Suite, type[ChaCha20Poly1305] | type[AESGCM]] = {
    "chacha20-poly1305": ChaCha20Poly1305,
    "aes-256-gcm": AESGCM,
}
_UNBOUND = ("chunks", "meta", "commitment")


def binding(core: Core) -> bytes:
    """SHA-256 of what chunks are bound to: the core without its chunk hashes, meta and commitment, with their count."""
    fields = msgspec.to_builtins(core)
    bound = {name: value for name, value in fields.items() if name not in _UNBOUND}
    return hashlib.sha256(canonical(bound | {"count": len(core.chunks)})).digest()


def sealed_length(suite: Suite, length: int) -> int:
    """Bytes on the wire of a chunk of `length` bytes."""
    if suite == "plaintext":
        return length
    if suite == "fernet":
        padded = (length + 32) // 16 * 16 + 16
        return (1 + 8 + 16 + padded + 32 + 2) // 3 * 4
    return length + TAG_BYTES


@dataclass(frozen=True)
class Sealer:
    """Seals and opens the chunks and the meta of one transfer. Make it with `sealer`."""

    suite: Suite
    bound: bytes
    count: int
    chunk_key: bytes
    meta_key: bytes
    commitment: str

    def seal(self, index: int, chunk: bytes) -> bytes:
        """Chunk `index`, ready for the wire."""
        return self._seal(self.chunk_key, index, chunk)

    def open(self, index: int, sealed: bytes) -> bytes:
        """The inverse of `seal`; raises `Refused("unsealing", ...)`."""
        return self._open(self.chunk_key, index, sealed)

    def seal_meta(self, text: str) -> str:
        """The report of a manifest as it stands in `Core.meta`: readable in plaintext, else base64url."""
        if self.suite == "plaintext":
            return text
        return to_text(self._seal(self.meta_key, META_INDEX, text.encode()))

    def open_meta(self, sealed: str) -> str:
        """The inverse of `seal_meta`; raises `Refused` (`unsealing`, `malformed`)."""
        if self.suite == "plaintext":
            return sealed
        opened = self._open(self.meta_key, META_INDEX, from_text(sealed))
        try:
            return opened.decode()
        except UnicodeDecodeError:
            raise Refused("malformed", "the sealed report is not UTF-8") from None

    def _associated(self, index: int) -> bytes:
        return self.bound + struct.pack(">QI", index, self.count)

    def _seal(self, key: bytes, index: int, data: bytes) -> bytes:
        if self.suite == "plaintext":
            return data
        if self.suite == "fernet":
            bound = hashlib.sha256(self._associated(index)).digest()
            return Fernet(base64.urlsafe_b64encode(key)).encrypt(bound + data)
        return _AEAD[self.suite](key).encrypt(_nonce(index), data, self._associated(index))

    def _open(self, key: bytes, index: int, sealed: bytes) -> bytes:
        if self.suite == "plaintext":
            return sealed
        try:
            if self.suite == "fernet":
                return self._open_fernet(key, index, sealed)
            return _AEAD[self.suite](key).decrypt(_nonce(index), sealed, self._associated(index))
        except (InvalidTag, InvalidToken, ValueError):
            place = "the report" if index == META_INDEX else f"chunk {index}"
            raise Refused("unsealing", f"{place} does not open: another key, or altered") from None

    def _open_fernet(self, key: bytes, index: int, sealed: bytes) -> bytes:
        opened = Fernet(base64.urlsafe_b64encode(key)).decrypt(sealed)
        if not hmac.compare_digest(opened[:32], hashlib.sha256(self._associated(index)).digest()):
            raise InvalidToken
        return opened[32:]


def sealer(core: Core, content_key: bytes) -> Sealer:
    """Derive the keys of one transfer. `core` needs every field that is bound; with `plaintext` the key is unused."""
    bound = binding(core)
    if core.suite == "plaintext":
        return Sealer(core.suite, bound, len(core.chunks), b"", b"", "")
    salt = bytes.fromhex(core.salt)

    def derive(label: bytes) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt, b"floe-v1 " + label + b"\n" + bound).derive(content_key)

    return Sealer(core.suite, bound, len(core.chunks), derive(b"chunk"), derive(b"meta"), derive(b"commitment").hex())


def wrap_shared(core: Core, content_key: bytes, secret: bytes, to: Name) -> Envelope:
    """Seal the content key for everybody who holds the shared secret; `to` is a name or `*`."""
    return Envelope(to=to, wrap="shared", key=to_text(_wrap(core, "shared", secret, to, content_key)))


def unwrap_shared(core: Core, envelope: Envelope, secret: bytes) -> bytes:
    """The inverse of `wrap_shared`; raises `Refused` (`unsealing`, `malformed`)."""
    return _unwrap(core, envelope, secret, from_text(envelope.key), "another secret.key?")


def wrap_hpke(core: Core, content_key: bytes, fresh: bytes, secret: bytes, recipient: str, to: Name) -> Envelope:
    """Seal the content key to the X25519 key `recipient` (RFC 9180), with the shared secret, if any, mixed in.

    `fresh`: 32 random bytes, used once.
    """
    sealed = seal_to(recipient, fresh, _info(core, "hpke", to))
    key = to_text(sealed + _wrap(core, "hpke", fresh + secret, to, content_key))
    return Envelope(to=to, wrap="hpke", key=key)


def unwrap_hpke(core: Core, envelope: Envelope, secret: bytes, private: X25519PrivateKey) -> bytes:
    """The inverse of `wrap_hpke`; raises `Refused` (`unsealing`, `malformed`)."""
    sealed = from_text(envelope.key)
    cut = KEY_BYTES + OVERHEAD
    fresh = open_with(private, sealed[:cut], _info(core, "hpke", envelope.to))
    return _unwrap(core, envelope, fresh + secret, sealed[cut:], "with another secret.key?")


def wrap_group(core: Core, content_key: bytes, secret: bytes, group_key: bytes, group: int, to: Name) -> Envelope:
    """Seal the content key for everybody who has the group key of version `group`, and the shared secret, if any."""
    key = to_text(_wrap(core, "group", group_key + secret, to, content_key))
    return Envelope(to=to, wrap="group", key=key, group=group)


def unwrap_group(core: Core, envelope: Envelope, secret: bytes, group_key: bytes) -> bytes:
    """The inverse of `wrap_group`; raises `Refused` (`unsealing`, `malformed`)."""
    return _unwrap(core, envelope, group_key + secret, from_text(envelope.key), "with another secret.key?")


def membership_proof(secret: bytes, federation: str, sender: str, key: str) -> str:
    """HMAC-SHA256 (RFC 2104) over who holds which key, under a key derived from the shared secret; base64url."""
    mac_key = HKDF(SHA256(), KEY_BYTES, b"", b"floe-v1 member\n").derive(secret)
    return to_text(hmac.digest(mac_key, f"{federation}\n{sender}\n{key}".encode(), "sha256"))


def _wrap(core: Core, wrap: str, key: bytes, to: str, content_key: bytes) -> bytes:
    # One key for one recipient of one transfer (hpke: of one envelope): so the constant nonce is used once.
    return ChaCha20Poly1305(_wrapping_key(core, wrap, key, to)).encrypt(_nonce(0), content_key, b"")


def _unwrap(core: Core, envelope: Envelope, key: bytes, sealed: bytes, guess: str) -> bytes:
    try:
        return ChaCha20Poly1305(_wrapping_key(core, envelope.wrap, key, envelope.to)).decrypt(_nonce(0), sealed, b"")
    except (InvalidTag, ValueError):
        raise Refused("unsealing", f"the content key does not open: {guess}") from None


def _wrapping_key(core: Core, wrap: str, key: bytes, to: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, bytes.fromhex(core.salt), _info(core, wrap, to)).derive(key)


def _info(core: Core, wrap: str, to: str) -> bytes:
    return f"floe-v1 wrap {wrap}\n".encode() + binding(core) + to.encode()


def _nonce(index: int) -> bytes:
    return struct.pack(">IQ", 0, index)
