"""What the golden files are made of: fixed keys, one model, one update, sealed with every suite. Reads nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from floe import messages as m
from floe import seal, transfer
from floe.identity import Identity
from floe.plan import Plan
from floe.signing import to_text

Json = dict[str, Any]
SCHEMA = '{"shape":[2],"classes":2,"features":["a","b"]}'


def fixed(label: str, length: int = 32) -> bytes:
    """Bytes that stand for random ones."""
    return hashlib.shake_256(b"floe test vector " + label.encode()).digest(length)


def identity(name: str) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(fixed(f"key of {name}")))


def _prime(label: str, offset: int) -> int:
    """1024 bits; the offset was found once: with it the number is prime, and 65537 does not divide its predecessor."""
    return (int.from_bytes(fixed(label, 128)) | 3 << 1022 | 1) + offset


def rsa_identity(name: str, offset_p: int, offset_q: int) -> Identity:
    p, q, e = _prime(f"p of {name}", offset_p), _prime(f"q of {name}", offset_q), 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    crt = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return Identity(name, rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(e, p * q)).private_key())


def private_bytes(who: Identity) -> bytes:
    if isinstance(who.private, rsa.RSAPrivateKey):
        return who.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return who.private.private_bytes_raw()


def raw_signature(data: bytes, who: Identity, salt_bytes: int = 32) -> bytes:
    """Ed25519, or RSASSA-PSS with a salt that is fixed (RFC 8017, 8.1.1 and 9.1.1; SHA-256, MGF1 with SHA-256)."""
    if not isinstance(who.private, rsa.RSAPrivateKey):
        return who.private.sign(data)
    salt = fixed("salt of a signature", salt_bytes)
    digest = hashlib.sha256(bytes(8) + hashlib.sha256(data).digest() + salt).digest()
    block = bytes(256 - 32 - 1 - 1 - salt_bytes) + b"\1" + salt
    mask = b"".join(hashlib.sha256(digest + struct.pack(">I", i)).digest() for i in range(7))[: len(block)]
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
    masked[0] &= 0x7F
    numbers = who.private.private_numbers()
    number = pow(int.from_bytes(masked + digest + b"\xbc"), numbers.d, numbers.public_numbers.n)
    return number.to_bytes(256)


def raw_signed(unsigned: bytes, who: Identity, domain: bytes = b"floe-v1 message\n") -> bytes:
    return ended(unsigned, raw_signature(domain + unsigned, who))


def ended(unsigned: bytes, signature: bytes) -> bytes:
    return unsigned[:-1] + f',"sig":"{to_text(signature)}"}}'.encode()


ROB = rsa_identity("rob", 1070, 224)
ANN, MAIN, EVE, OPA = identity("ann"), identity("main"), identity("eve"), identity("opa")
SECRET = fixed("secret")
PHASE = m.Phase("main", 1, 1, "train")


def weights_file(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file, written without Floe: name -> dtype, shape, data."""
    entries: Json = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (dtype, shape, data) in sorted(tensors.items()):
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return raw_weights(json.dumps(entries, separators=(",", ":")), b"".join(t[2] for _, t in sorted(tensors.items())))


def raw_weights(header: str, data: bytes) -> bytes:
    text = header.encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


MODEL = weights_file(
    {"bias": ("F32", [1], struct.pack("<f", 0.0)), "weight": ("F32", [1, 2], struct.pack("<2f", 0.0, 0.0))},
    {"schema": SCHEMA},
)
UPDATE = weights_file(
    {"bias": ("F32", [1], struct.pack("<f", 0.5)), "weight": ("F32", [1, 2], struct.pack("<2f", 1.0, -2.0))},
    {"schema": SCHEMA},
)
REPORT = '{"samples":40,"test_samples":10,"after":{"loss":0.25,"accuracy":0.9,"roc_auc":null},"seconds":1.5}'


class FixedFernet(seal.Sealer):
    """Fernet with a fixed time and a fixed initialization vector, so that the golden file does not change."""

    def _seal(self, key: bytes, index: int, data: bytes) -> bytes:
        padder = PKCS7(128).padder()
        plain = hashlib.sha256(self._associated(index)).digest() + data
        padded = padder.update(plain) + padder.finalize()
        iv = fixed(f"iv {index}", 16)
        encryptor = Cipher(AES(key[16:]), CBC(iv)).encryptor()
        token = b"\x80" + struct.pack(">Q", 1_700_000_000) + iv + encryptor.update(padded) + encryptor.finalize()
        return base64.urlsafe_b64encode(token + hmac.digest(key[:16], token, "sha256"))


def sealed(core: m.Core, payload: bytes, report: str) -> tuple[m.Core, list[bytes], m.Envelope, Json]:
    """A transfer of a payload: core with its hashes, sealed chunks, envelope, and every key on the way."""
    label = f"{core.sender} {core.suite} {core.size}"
    size = transfer.chunk_bytes_for(len(payload))
    count = transfer.chunk_count(len(payload), size)
    core = msgspec.structs.replace(
        core, size=len(payload), chunk_size=size, chunks=("0" * 64,) * count, salt=fixed(f"salt {label}", 16).hex()
    )
    content_key = b"" if core.suite == "plaintext" else fixed(f"content key {label}")
    keys = seal.sealer(core, content_key)
    if core.suite == "fernet":
        keys = FixedFernet(keys.suite, keys.bound, keys.count, keys.chunk_key, keys.meta_key, keys.commitment)
    chunks = [keys.seal(i, payload[i * size : (i + 1) * size]) for i in range(count)]
    hashes = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
    core = msgspec.structs.replace(core, chunks=hashes, meta=keys.seal_meta(report), commitment=keys.commitment)
    to = "*" if core.kind == "model" else "main"
    envelope = m.Envelope(to=to, wrap="none", key="")
    if content_key:
        envelope = seal.wrap_shared(core, content_key, SECRET, to)
    derived = {
        "content_key": content_key.hex(), "bound": keys.bound.hex(),
        "chunk_key": keys.chunk_key.hex(), "meta_key": keys.meta_key.hex(), "report": report,
    }  # fmt: skip
    return core, chunks, envelope, derived


def draft(suite: str, kind: str = "update", sender: str = "ann", base: bytes = MODEL) -> m.Core:
    started = "" if kind == "telemetry" else hashlib.sha256(base).hexdigest()
    return msgspec.convert(
        {"federation": "floe", "lineage": "main", "epoch": 1, "round": 0 if kind == "model" else 1, "task": "train",
         "kind": kind, "sender": sender, "base": started, "suite": suite, "salt": "0" * 32,
         "commitment": "", "size": 0, "chunk_size": 1, "chunks": [], "meta": ""},
        m.Core,
    )  # fmt: skip


UPDATES = {
    suite: sealed(draft(suite), UPDATE, REPORT) for suite in ("chacha20-poly1305", "aes-256-gcm", "fernet", "plaintext")
}
GLOBAL = sealed(draft("chacha20-poly1305", "model", "main"), MODEL, "{}")
TELEMETRY = (
    '{"cpu_percent":12.5,"memory_percent":40.0,"process_bytes":61000000,"disk_percent":71.5,"disk_free_bytes":8500000000,'
    '"sent_bytes_s":1200.5,"received_bytes_s":0.0,"temperature_c":54.5,"uptime_s":3600.0,"retries":2,"model_sha256":null,'
    '"lines":[{"age_s":1.5,"level":"warning","text":"connection lost: café; trying again"}],"dropped":3}'
)
TOLD = sealed(draft("chacha20-poly1305", "telemetry"), b"", TELEMETRY)
BASE = m.Base(sha256=GLOBAL[0].base, transfer=transfer.name_of(GLOBAL[0]))
NAME = transfer.name_of(UPDATES["chacha20-poly1305"][0])


def message(who: Identity, kind: type[m.Message], seq: int, **fields: Any) -> bytes:
    proof = seal.membership_proof(SECRET, "floe", who.name, who.key)
    header = {"federation": "floe", "sender": who.name, "key": who.key, "proof": proof, "seq": seq}
    return raw_signed(m.encode(kind(**(header | fields))), who)


def signed() -> dict[str, bytes]:
    """One message of each type and more."""
    core, _, envelope, _ = UPDATES["chacha20-poly1305"]
    session = 2**32
    return {
        "status": message(ANN, m.Status, session + 1, state="online", software="0.1.0"),
        "status-plaintext": message(ANN, m.Status, session + 1, state="online", proof=""),
        "status-will": message(ANN, m.Status, 2 * session - 1, state="offline"),
        "status-training": message(ANN, m.Status, session + 2, state="training", phase=PHASE),
        "status-rsa": message(ROB, m.Status, session + 1, state="online", software="0.1.0"),
        "round": message(MAIN, m.Round, session + 3, phase=PHASE, state="open", base=BASE, quorum=1,
                         plan=Plan(model="linear", scaling="none"), seconds_left=600.0),
        "round-first": message(MAIN, m.Round, session + 1, phase=m.Phase("main", 1, 0, "init"), state="open",
                               base=None, plan=Plan(), devices=("ann", "bob"), bar="8000000000000000"),
        "manifest-model": message(MAIN, m.Manifest, session + 2, core=GLOBAL[0], envelope=GLOBAL[2]),
        "manifest-update": message(ANN, m.Manifest, session + 3, core=core, envelope=envelope),
        "manifest-telemetry": message(ANN, m.Manifest, session + 5, core=TOLD[0], envelope=TOLD[2]),
        "want": message(MAIN, m.Want, session + 4, to="ann", transfer=NAME, ranges=((0, 1),)),
        "want-manifest": message(ANN, m.Want, session + 4, to="main", transfer=BASE.transfer, ranges=()),
        "want-rsa": message(ROB, m.Want, session + 4, to="main", transfer=BASE.transfer, ranges=((0, 1),)),
        "answer": message(MAIN, m.Answer, session + 5, to="ann", to_key=ANN.key, transfer=NAME, phase=PHASE,
                          outcome="accepted"),
        "answer-rejected": message(MAIN, m.Answer, session + 6, to="ann", to_key=ANN.key, transfer=NAME, phase=PHASE,
                                   outcome="rejected", reason="schema", detail='3 features, "café" \U0001f600'),
        "round-waiting": message(MAIN, m.Round, session + 7, phase=PHASE, state="waiting", base=BASE, plan=Plan(),
                                 staleness=10),
        "command": message(OPA, m.Command, session + 1, to="main", action="pause"),
        "command-start": message(OPA, m.Command, session + 2, to="main", action="start", rounds=5),
        "command-plan": message(OPA, m.Command, session + 3, to="main", action="plan",
                                plan=Plan(model="linear", scaling="none", epochs=3)),
        "command-promote": message(OPA, m.Command, session + 4, to="main", action="promote", model=BASE.sha256),
        "reply": message(MAIN, m.Reply, session + 8, to="opa", to_key=OPA.key, command=session + 1,
                         newest=session + 1, done=True, detail="the open round goes on, no other opens", phase=PHASE,
                         stage="open", held="paused", last=10, online=2, expected=2, accepted=1, refused=0, quorum=2,
                         seconds_left=590.5, plan=Plan()),
    }  # fmt: skip


def transfer_of(name: str, made: tuple[m.Core, list[bytes], m.Envelope, Json], payload: bytes) -> Json:
    core, chunks, envelope, derived = made
    found: Json = {
        "name": name, "secret": SECRET.hex(), "core": msgspec.to_builtins(core),
        "envelope": msgspec.to_builtins(envelope), "transfer": transfer.name_of(core), **derived,
    }  # fmt: skip
    # Long chunks are described: who seals the payload again finds their hashes in the core.
    if len(payload) < 1000:
        found |= {"chunks": [chunk.hex() for chunk in chunks], "payload": payload.hex()}
    else:
        found |= {"payload_rule": "byte i is i modulo 251"}
    return found


ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def flipped(character: bytes) -> bytes:
    """Base64url with its highest bit the other way."""
    return ALPHABET[(place := ALPHABET.index(character) ^ 32) : place + 1]


def respelled(character: bytes) -> bytes:
    """The last character with a bit set that decodes to nothing."""
    return ALPHABET[(place := ALPHABET.index(character) ^ 1) : place + 1]
