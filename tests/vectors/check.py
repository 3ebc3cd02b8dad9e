"""An independent reader of valid/*.json: written from PROTOCOL.md alone, it imports nothing of Floe.

    python tests/vectors/check.py

Verifies every signature, name, key, seal, weights file, selection, topic and range; prints what it checked, one line
a file, and ends with 1 at the first that disagrees. Needs the package cryptography. Reads the files beside it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

Json = dict[str, Any]
NAME = "[a-z0-9_-]{1,64}"
NUMBER = "(?:0|[1-9][0-9]{0,9})"


def canonical(value: object) -> bytes:
    """Section 6.1."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode64(text: str) -> bytes:
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text, f"{text} is not canonical"
    return raw


def hkdf(secret: bytes, salt: str, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, bytes.fromhex(salt), info).derive(secret)


def nonce(index: int) -> bytes:
    return struct.pack(">IQ", 0, index)


def verify(payload: bytes) -> Json:
    """Section 4.1: the message whose signature was checked over the bytes as they came."""
    tail = re.search(rb',"sig":"([^"]*)"}\Z', payload)
    assert tail, "the signature is not last"
    unsigned = payload[: tail.start()] + b"}"
    message: Json = json.loads(unsigned)
    raw, signature, data = decode64(message["key"]), decode64(tail[1].decode()), b"floe-v1 message\n" + unsigned
    if len(raw) == 32:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
        return message
    key = load_der_public_key(raw)
    assert isinstance(key, RSAPublicKey)
    assert (key.key_size, key.public_numbers().e, len(raw)) == (2048, 65537, 294)
    key.verify(signature, data, PSS(MGF1(SHA256()), 32), SHA256())
    return message


def messages(case: Json) -> None:
    message = verify(case["payload"].encode())
    private = bytes.fromhex(case["private"])
    if len(private) == 32:
        public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    else:
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        public = load_der_private_key(private, None).public_key().public_bytes(*form)
    assert decode64(message["key"]) == public
    assert (message["floe"], message["type"], message["federation"]) == (1, case["type"], "floe")


def transfers(case: Json) -> None:
    """Sections 6.1, 6.2 and 7."""
    core = case["core"]
    assert hashlib.sha256(canonical(core)).hexdigest()[:32] == case["transfer"], "name"
    payload = bytes.fromhex(case["payload"]) if "payload" in case else bytes(i % 251 for i in range(core["size"]))
    assert len(payload) == core["size"]
    assert len(core["chunks"]) == math.ceil(core["size"] / core["chunk_size"])
    bound_part = {k: v for k, v in core.items() if k not in ("chunks", "meta", "commitment")}
    bound = hashlib.sha256(canonical(bound_part | {"count": len(core["chunks"])})).digest()
    assert bound.hex() == case["bound"], "bound"
    if core["suite"] == "plaintext":
        pieces = [bytes.fromhex(chunk) for chunk in case["chunks"]]
        assert (b"".join(pieces), core["meta"], core["commitment"]) == (payload, case["report"], "")
        return
    content_key = unwrap(core, case["envelope"], bytes.fromhex(case["secret"]), bound)
    assert content_key.hex() == case["content_key"], "content key"
    chunk_key, meta_key, commitment = (
        hkdf(content_key, core["salt"], f"floe-v1 {label}\n".encode() + bound)
        for label in ("chunk", "meta", "commitment")
    )
    assert (chunk_key.hex(), meta_key.hex()) == (case["chunk_key"], case["meta_key"]), "keys"
    assert commitment.hex() == core["commitment"], "commitment"
    sealed = (
        [bytes.fromhex(chunk) for chunk in case["chunks"]]
        if "chunks" in case
        else seal(core, chunk_key, payload, bound)
    )
    assert [hashlib.sha256(chunk).hexdigest() for chunk in sealed] == core["chunks"], "chunk hashes"
    opened = b"".join(unseal(core, chunk_key, i, chunk, bound) for i, chunk in enumerate(sealed))
    assert opened == payload, "payload"
    report = unseal(core, meta_key, 2**64 - 1, decode64(core["meta"]), bound).decode()
    assert report == case["report"], "report"


def unwrap(core: Json, envelope: Json, secret: bytes, bound: bytes) -> bytes:
    """Section 7.5."""
    wrapping_key = hkdf(secret, core["salt"], b"floe-v1 wrap shared\n" + bound + envelope["to"].encode())
    return ChaCha20Poly1305(wrapping_key).decrypt(nonce(0), decode64(envelope["key"]), None)


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


def weights(case: Json) -> None:
    """Section 8."""
    content = bytes.fromhex(case["file"])
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    assert header.pop("__metadata__", {}) == case["metadata"]
    assert header.keys() == case["tensors"].keys()
    end = 0
    for name in sorted(header):
        entry, (dtype, shape, values) = header[name], case["tensors"][name]
        start, stop = entry["data_offsets"]
        assert (entry["dtype"], entry["shape"], start) == (dtype, shape, end), name
        letter = {"F16": "e", "F32": "f", "F64": "d", "I64": "q"}[dtype]
        assert list(struct.unpack(f"<{math.prod(shape)}{letter}", data[start:stop])) == values, name
        assert all(abs(value) <= (2**53 if dtype == "I64" else 1e100) for value in values), name
        end = stop
    assert end == len(data)


def selection(case: Json) -> None:
    """Section 5.2."""
    assert rank(case["device"], case["phase"], case["seed"]) == case["rank"]
    member = not case["devices"] or case["device"] in case["devices"]
    assert (member and int(case["rank"], 16) <= int(case["bar"], 16)) == case["takes_part"]


def rank(device: str, phase: Json, seed: int) -> str:
    """Section 5.2."""
    lines = [seed, phase["lineage"], phase["epoch"], phase["round"], device]
    text = "floe-v1 select\n" + "\n".join(map(str, lines))
    return hashlib.sha256(text.encode()).digest()[:8].hex()


def bars(case: Json) -> None:
    """Section 5.2."""
    there = [device for device in case["online"] if not case["devices"] or device in case["devices"]]
    ranks = sorted(rank(device, case["phase"], case["seed"]) for device in there)
    wanted = max(math.floor(case["fraction"] * len(ranks)), 1)
    assert case["bar"] == ("f" * 16 if case["fraction"] == 1 or not ranks else ranks[wanted - 1])
    assert len(case["selected"]) == min(wanted, len(ranks))
    assert sorted(rank(device, case["phase"], case["seed"]) for device in case["selected"]) == ranks[:wanted]


def proofs(case: Json) -> None:
    """Section 4.2."""
    key = hkdf(bytes.fromhex(case["secret"]), "", b"floe-v1 member\n")
    text = f"{case['federation']}\n{case['sender']}\n{case['key']}"
    assert hmac.digest(key, text.encode(), "sha256") == decode64(case["proof"])


DEVICE, LINEAGE = "floe/{federation}/device/{device}", "floe/{federation}/lineage/{lineage}"
PATTERNS = {
    "DeviceStatus": DEVICE + "/status",
    "DeviceManifest": DEVICE + "/{lineage}/{round}/manifest",
    "DeviceChunk": DEVICE + "/{lineage}/{round}/chunk/{transfer}/{index}",
    "DeviceWant": DEVICE + "/{lineage}/want",
    "AggregatorStatus": LINEAGE + "/status",
    "CurrentRound": LINEAGE + "/round",
    "ModelManifest": LINEAGE + "/model",
    "ModelChunk": LINEAGE + "/{round}/chunk/{transfer}/{index}",
    "WantTo": LINEAGE + "/to/{device}/want",
    "AnswerTo": LINEAGE + "/to/{device}/answer",
    "ModelManifestTo": LINEAGE + "/to/{device}/model",
    "OperatorCommand": "floe/{federation}/operator/{operator}/{lineage}/command",
    "ReplyTo": LINEAGE + "/to/{operator}/reply",
    "ModelChunkTo": LINEAGE + "/to/{device}/{round}/chunk/{transfer}/{index}",
    "CurrentRoster": LINEAGE + "/roster",
    "EntryTo": LINEAGE + "/to/{device}/entry",
    "DeviceJoin": DEVICE + "/{lineage}/join",
    "JoinReplyTo": LINEAGE + "/to/{device}/join",
    "OperatorRoster": "floe/{federation}/operator/{operator}/{lineage}/roster",
    "RosterReplyTo": LINEAGE + "/to/{operator}/roster",
}


def topics(case: Json) -> None:
    """Section 2."""
    assert PATTERNS[case["kind"]].format(**case["levels"]) == case["topic"]
    for level, value in case["levels"].items():
        assert re.fullmatch(NUMBER if level in ("round", "index") else NAME, str(value)), level


def ranges(case: Json) -> None:
    covered = [i for start, stop in case["ranges"] for i in range(start, stop)]
    assert covered == case["indices"]
    assert all(a[1] < b[0] for a, b in zip(case["ranges"], case["ranges"][1:], strict=False))


def sizes(case: Json) -> None:
    """Section 6.2."""
    chunk = 65_536
    while math.ceil(case["size"] / chunk) > 1024:
        chunk *= 2
    assert (chunk, math.ceil(case["size"] / chunk)) == (case["chunk_size"], case["chunks"])


def canonicals(case: Json) -> None:
    assert canonical(case["value"]).decode() == case["canonical"]
    assert hashlib.sha256(case["canonical"].encode()).hexdigest() == case["sha256"]


def flow(case: Json) -> None:
    """Section 13."""
    if "text" in case:
        message = verify(case["text"].encode())
        assert message["sender"] in case["topic"].split("/")
    else:
        assert re.fullmatch(f"floe/.*/chunk/[0-9a-f]{{32}}/{NUMBER}", case["topic"])


CHECKS: dict[str, Callable[[Json], None]] = {
    "bars": bars,
    "canonical": canonicals,
    "flow": flow,
    "messages": messages,
    "proofs": proofs,
    "ranges": ranges,
    "selection": selection,
    "sizes": sizes,
    "topics": topics,
    "transfers": transfers,
    "weights": weights,
}


def main(folder: Path) -> int:
    """Check every file; 1 if one disagrees or is not known."""
    paths = sorted((folder / "valid").glob("*.json"))
    for path in paths:
        cases = json.loads(path.read_text())
        for number, case in enumerate(cases):
            try:
                CHECKS[path.stem](case)
            except Exception as error:
                print(f"{path.name}, case {number} {case.get('name', '')}: {type(error).__name__}: {error}")
                return 1
        print(f"{path.name}: {len(cases)} agree")
    return 0 if len(paths) == len(CHECKS) else 1


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent))
