"""Signatures, transfers and what is sealed, from PROTOCOL.md alone: imports nothing of Floe."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from typing import Any

import hpke9180
from check_fields import check_message, check_struct, decode64, parse
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

Json = dict[str, Any]
AEADS = ("chacha20-poly1305", "aes-256-gcm")


def canonical(value: object) -> bytes:
    """Section 6.1."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def hkdf(secret: bytes, salt: str, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, bytes.fromhex(salt), info).derive(secret)


def nonce(index: int) -> bytes:
    return struct.pack(">IQ", 0, index)


def x25519(text: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def verify(payload: bytes, kind: str) -> Json:
    """Sections 3 and 4.1: the message whose signature was checked over the bytes as they came."""
    assert len(payload) <= 131_072
    tail = re.search(rb',"sig":"([A-Za-z0-9_-]*)"}\Z', payload)
    assert tail, "the signature is not last"
    unsigned = payload[: tail.start()] + b"}"
    message = parse(unsigned)
    check_message(message, kind)
    verify_bytes(message["key"], tail[1].decode(), b"floe-v1 message\n" + unsigned)
    return message


def verify_bytes(key_text: str, signature_text: str, data: bytes) -> None:
    """Section 4.1."""
    raw, signature = decode64(key_text), decode64(signature_text)
    if len(raw) == 32:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
        return
    key = load_der_public_key(raw)
    assert isinstance(key, RSAPublicKey)
    assert (key.key_size, key.public_numbers().e, len(raw), len(signature)) == (2048, 65537, 294, 256)
    assert key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == raw, "another spelling of the key"
    key.verify(signature, data, PSS(MGF1(SHA256()), 32), SHA256())


def transfers(case: Json) -> None:
    """Sections 6.1, 6.2 and 7: all that a valid case says."""
    core = case["core"]
    assert hashlib.sha256(canonical(core)).hexdigest()[:32] == case["transfer"], "name"
    payload = bytes.fromhex(case["payload"]) if "payload" in case else bytes(i % 251 for i in range(core["size"]))
    assert len(payload) == core["size"]
    assert len(core["chunks"]) == math.ceil(core["size"] / core["chunk_size"])
    bound = binding(core)
    assert bound.hex() == case["bound"], "bound"
    if core["suite"] == "plaintext":
        pieces = [bytes.fromhex(chunk) for chunk in case["chunks"]]
        assert (b"".join(pieces), core["meta"], core["commitment"]) == (payload, case["report"], "")
        return
    content_key, chunk_key, meta_key = keys_of(case)
    assert content_key.hex() == case["content_key"], "content key"
    assert (chunk_key.hex(), meta_key.hex()) == (case["chunk_key"], case["meta_key"]), "keys"
    found = case["chunks"] if "chunks" in case else [chunk.hex() for chunk in seal(core, chunk_key, payload, bound)]
    sealed = [bytes.fromhex(chunk) for chunk in found]
    assert [hashlib.sha256(chunk).hexdigest() for chunk in sealed] == core["chunks"], "chunk hashes"
    opened = b"".join(unseal(core, chunk_key, i, chunk, bound) for i, chunk in enumerate(sealed))
    assert opened == payload, "payload"
    assert unseal(core, meta_key, 2**64 - 1, decode64(core["meta"]), bound).decode() == case["report"], "report"
    if core["kind"] != "model":
        check_struct(parse(case["report"].encode()), report_of(core))


def changed_transfer(case: Json) -> None:
    """What a receiver does with a transfer: its key, its report, its chunk 0."""
    core = case["core"]
    check_struct(core, "Core")
    check_struct(case["envelope"], "Envelope")
    _, chunk_key, meta_key = keys_of(case)
    bound = binding(core)
    report = unseal(core, meta_key, 2**64 - 1, decode64(core["meta"]), bound)
    check_struct(parse(report), report_of(core))
    sealed = bytes.fromhex(case.get("sealed", ""))
    assert hashlib.sha256(sealed).hexdigest() == core["chunks"][0], "chunk hash"
    length = min(core["size"], core["chunk_size"])
    assert len(sealed) == sealed_length(core["suite"], length), "chunk length"
    assert len(unseal(core, chunk_key, 0, sealed, bound)) == length


def report_of(core: Json) -> str:
    """Section 9: which table `meta` is read by."""
    return {"update": "Report", "telemetry": "Telemetry"}[core["kind"]]


def binding(core: Json) -> bytes:
    """Section 7.2."""
    part = {name: value for name, value in core.items() if name not in ("chunks", "meta", "commitment")}
    return hashlib.sha256(canonical(part | {"count": len(core["chunks"])})).digest()


def keys_of(case: Json) -> tuple[bytes, bytes, bytes]:
    """Section 7.3: content key, chunk key and meta key of a transfer that is committed to them."""
    core, bound = case["core"], binding(case["core"])
    content_key = unwrap(case, bound)
    chunk_key, meta_key, commitment = (
        hkdf(content_key, core["salt"], f"floe-v1 {label}\n".encode() + bound)
        for label in ("chunk", "meta", "commitment")
    )
    assert commitment.hex() == core["commitment"], "commitment"
    return content_key, chunk_key, meta_key


def unwrap(case: Json, bound: bytes) -> bytes:
    """Section 7.5: by what the receiver has, not by what the envelope says."""
    core, envelope, secret = case["core"], case["envelope"], bytes.fromhex(case["secret"])
    enrolled = "private" in case
    wrap = {"update": "hpke", "telemetry": "hpke", "model": "group"}[core["kind"]] if enrolled else "shared"
    assert envelope["wrap"] == wrap, "wrap"
    assert core["suite"] in (AEADS if enrolled else (*AEADS, "fernet")), "suite"
    info, key = f"floe-v1 wrap {wrap}\n".encode() + bound + envelope["to"].encode(), decode64(envelope["key"])
    if wrap == "hpke":
        secret = hpke9180.open_sealed(x25519(case["private"]), key[:80], info) + secret
        key = key[80:]
    if wrap == "group":
        assert envelope["group"] == case["group"], "another group key"
        secret = bytes.fromhex(case["group_key"]) + secret
    return ChaCha20Poly1305(hkdf(secret, core["salt"], info)).decrypt(nonce(0), key, None)


def aead(core: Json, key: bytes) -> ChaCha20Poly1305 | AESGCM:
    return ChaCha20Poly1305(key) if core["suite"] == "chacha20-poly1305" else AESGCM(key)


def associated(core: Json, index: int, bound: bytes) -> bytes:
    return bound + struct.pack(">QI", index, len(core["chunks"]))


def unseal(core: Json, key: bytes, index: int, sealed: bytes, bound: bytes) -> bytes:
    """Section 7.4."""
    data = associated(core, index, bound)
    if core["suite"] == "fernet":
        plain = Fernet(base64.urlsafe_b64encode(key)).decrypt(sealed)
        assert plain[:32] == hashlib.sha256(data).digest(), "binding of a token"
        return plain[32:]
    return aead(core, key).decrypt(nonce(index), sealed, data)


def seal(core: Json, key: bytes, payload: bytes, bound: bytes) -> list[bytes]:
    size = core["chunk_size"]
    return [
        aead(core, key).encrypt(nonce(i), payload[i * size : (i + 1) * size], associated(core, i, bound))
        for i in range(len(core["chunks"]))
    ]


def sealed_length(suite: str, length: int) -> int:
    """Section 7.1."""
    if suite == "fernet":
        return 4 * math.ceil((57 + 16 * ((length + 32) // 16) + 16) / 3)
    return length + 16


def opened_hpke(case: Json) -> bytes:
    """Section 15.4."""
    return hpke9180.open_sealed(x25519(case["private"]), bytes.fromhex(case["sealed"]), bytes.fromhex(case["info"]))


def hpke(case: Json) -> None:
    assert opened_hpke(case).hex() == case["plaintext"]
