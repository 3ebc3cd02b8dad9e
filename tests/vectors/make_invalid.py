"""Invalid messages, topics, ranges and cores, each with its reason: one function for one file in invalid/."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from material import (
    ANN,
    EVE,
    MAIN,
    NAME,
    ROB,
    SECRET,
    UPDATES,
    Json,
    ended,
    fixed,
    flipped,
    raw_signature,
    raw_signed,
    respelled,
    signed,
)

from floe.identity import Identity
from floe.seal import membership_proof
from floe.signing import to_text


def resigned(change: Callable[[Json], object], kind: str = "want", who: Identity = MAIN) -> bytes:
    """A message that was changed and then signed: only its content is wrong."""
    fields = json.loads(signed()[kind])
    del fields["sig"]
    change(fields)
    return raw_signed(json.dumps(fields).encode(), who)


def messages() -> list[Json]:
    want = signed()["want"]
    plain = want[:-96] + b"}"
    text = plain.decode()

    def closed(unsigned: bytes, who: Identity = MAIN, domain: bytes = b"floe-v1 message\n") -> bytes:
        return raw_signed(unsigned, who, domain)

    def said(old: str, new: str) -> bytes:
        return closed(text.replace(old, new).encode())

    def put(**fields: Any) -> Callable[[Json], object]:
        return lambda found: found.update(fields)

    def manifest(**fields: Any) -> bytes:
        return resigned(lambda found: found["core"].update(fields), "manifest-update", ANN)

    cases: list[tuple[str, str, bytes, str]] = [
        ("empty", "want", b"", "signature"),
        ("not JSON", "want", closed(b"{want}"), "malformed"),
        ("a list", "want", closed(b"[1]")[:-1] + b"}", "malformed"),
        ("not UTF-8", "want", closed(text.replace('"ann"', '"\xff"').encode("latin-1")), "malformed"),
        ("byte order mark", "want", closed(b"\xef\xbb\xbf" + plain), "malformed"),
        ("duplicate key", "want", said('{"type"', '{"seq":1,"type"'), "malformed"),
        ("duplicate key, escaped", "want", said('{"type"', '{"\\u0073eq":1,"type"'), "malformed"),
        ("NaN", "round", resigned(put(seconds_left=float("nan")), "round"), "malformed"),
        ("Infinity", "round", resigned(put(seconds_left=float("inf")), "round"), "malformed"),
        ("number too large for a double", "round",
         closed(signed()["round"][:-96].replace(b":600.0", b":1e999") + b"}"), "malformed"),
        ("number of 5000 digits", "want", said(":4294967300", ":" + "9" * 5000), "malformed"),
        ("sequence beyond 2^53", "want", resigned(put(seq=2**53)), "malformed"),
        ("negative sequence", "want", resigned(put(seq=-1)), "malformed"),
        ("sequence as a fraction", "want", said(":4294967300", ":1.0"), "malformed"),
        ("sequence as text", "want", resigned(put(seq="1")), "malformed"),
        ("half a surrogate pair", "answer", resigned(put(detail="\ud800"), "answer"), "malformed"),
        ("deep nesting", "want", closed(b'{"floe":1,"x":' + b"[" * 3000 + b"]" * 3000 + b"}"), "malformed"),
        ("version 2", "want", resigned(put(floe=2)), "unknown-version"),
        ("no version", "want", resigned(lambda found: found.pop("floe")), "unknown-version"),
        ("version as text", "want", resigned(put(floe="1")), "unknown-version"),
        ("unknown field", "want", resigned(put(extra=1)), "malformed"),
        ("unknown field in the core", "manifest", manifest(extra=1), "malformed"),
        ("missing field", "want", resigned(lambda found: found.pop("ranges")), "malformed"),
        ("no type", "want", resigned(lambda found: found.pop("type")), "malformed"),
        ("another type", "want", signed()["answer"], "malformed"),
        ("name in upper case", "want", resigned(put(to="Ann")), "malformed"),
        ("name with a line break", "want", resigned(put(to="ann\n")), "malformed"),
        ("name of 65 characters", "want", resigned(put(to="a" * 65)), "malformed"),
        ("hash of 63 digits", "manifest", manifest(base="0" * 63), "malformed"),
        ("1025 chunks", "manifest", manifest(chunks=["0" * 64] * 1025), "malformed"),
        ("513 ranges", "want", resigned(put(ranges=[[i, i + 1] for i in range(0, 1026, 2)])), "malformed"),
        ("range of three", "want", resigned(put(ranges=[[0, 1, 2]])), "malformed"),
        ("unknown suite", "manifest", manifest(suite="rot13"), "malformed"),
        ("unknown task", "round", resigned(lambda found: found["phase"].update(task="mine"), "round"), "malformed"),
        ("plan that names code", "round",
         resigned(lambda found: found["plan"].update(model="os.path:join"), "round"), "malformed"),
        ("reason that is none", "answer", resigned(put(reason="because"), "answer"), "malformed"),
        ("no proof", "want", resigned(lambda found: found.pop("proof")), "malformed"),
        ("proof of 42 characters", "want", resigned(lambda found: put(proof=found["proof"][1:])(found)), "malformed"),
        ("proof with padding", "want", resigned(lambda found: put(proof=found["proof"] + "=")(found)), "malformed"),
        ("bar of 15 digits", "round", resigned(put(bar="0" * 15), "round"), "malformed"),
        ("bar in upper case", "round", resigned(put(bar="F" * 16), "round"), "malformed"),
        ("share of the devices, gone since", "round", resigned(put(fraction=0.5), "round"), "malformed"),
        ("answer to nobody's key", "answer", resigned(lambda found: found.pop("to_key"), "answer"), "malformed"),
        ("oversized", "want", resigned(put(to="a" * 131_072)), "oversized"),
        ("no signature", "want", plain, "signature"),
        ("signature first", "want", b'{"sig":"' + want[-88:-2] + b'",' + plain[1:], "signature"),
        ("signature first, and last", "want", closed(b'{"sig":"' + want[-88:-2] + b'",' + plain[1:]), "malformed"),
        ("space after the signature", "want", want + b" ", "signature"),
        ("signature of another key", "want", closed(plain, EVE), "signature"),
        ("first bit of the signature", "want", want[:-88] + flipped(want[-88:-87]) + want[-87:], "signature"),
        ("a byte of the content", "want", want.replace(b'"to":"ann"', b'"to":"amn"'), "signature"),
        ("signed in another domain", "want", closed(plain, domain=b"floe-v1 model\n"), "signature"),
        ("signature in another spelling", "want", want[:-3] + respelled(want[-3:-2]) + want[-2:], "malformed"),
        ("signature with a plus", "want", want[:-88] + b"+" + want[-87:], "signature"),
        ("key of 31 bytes", "want", resigned(put(key=to_text(bytes(31)))), "signature"),
        ("key in another spelling", "want",
         resigned(put(key=MAIN.key[:-1] + respelled(MAIN.key[-1:].encode()).decode())), "malformed"),
        ("key with padding", "want", resigned(put(key=MAIN.key + "=")), "malformed"),
    ]  # fmt: skip
    cases += [(f"RSA: {name}", "want", payload, reason) for name, payload, reason in _rsa()]
    return [{"name": n, "type": t, "payload": base64.b64encode(p).decode(), "reason": r} for n, t, p, r in cases]


def _rsa() -> list[tuple[str, bytes, str]]:
    want = signed()["want-rsa"]
    plain = want[:-352] + b"}"
    data = b"floe-v1 message\n" + plain
    assert isinstance(ROB.private, rsa.RSAPrivateKey)
    n, p = ROB.private.public_key().public_numbers().n, ROB.private.private_numbers().p
    info = spki(65537, n)

    def keyed(key: bytes) -> bytes:
        return raw_signed(plain.replace(ROB.key.encode(), to_text(key).encode()), ROB)

    return [
        ("first bit of the signature", want[:-344] + flipped(want[-344:-343]) + want[-343:], "signature"),
        ("signature in another spelling", want[:-3] + respelled(want[-3:-2]) + want[-2:], "malformed"),
        ("a byte of the content", want.replace(b'"to":"main"', b'"to":"maim"'), "signature"),
        ("PKCS #1 v1.5", ended(plain, ROB.private.sign(data, PKCS1v15(), SHA256())), "signature"),
        ("salt of 20 bytes", ended(plain, raw_signature(data, ROB, 20)), "signature"),
        ("salt of 222 bytes", ended(plain, raw_signature(data, ROB, 222)), "signature"),
        ("signature of 255 bytes", ended(plain, raw_signature(data, ROB)[1:]), "signature"),
        ("signature of nothing but ones", ended(plain, b"\xff" * 256), "signature"),
        ("Ed25519 signature", ended(plain, raw_signature(data, MAIN)), "signature"),
        ("signature of 256 bytes under an Ed25519 key",
         resigned(lambda found: found.update(key=MAIN.key), "want-rsa", ROB), "signature"),
        ("key of 1024 bits", keyed(spki(65537, p)), "signature"),
        ("key of 2047 bits", keyed(spki(65537, n >> 1 | 1)), "signature"),
        ("key of 3072 bits", keyed(spki(65537, n * p)), "malformed"),
        ("exponent 3", keyed(spki(3, n)), "signature"),
        ("even modulus", keyed(info[:288] + bytes([info[288] & 0xFE]) + info[289:]), "signature"),
        ("key as RSAPublicKey", keyed(info[24:]), "signature"),
        ("key with a byte behind it", keyed(info + b"\0"), "signature"),
        ("key that is for PSS alone", keyed(info[:16] + b"\x0a" + info[17:]), "signature"),
        ("key of all ones", keyed(info[:33] + b"\xff" * 256 + info[289:]), "signature"),
    ]  # fmt: skip


def spki(exponent: int, modulus: int) -> bytes:
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def proofs() -> list[Json]:
    """A proof that is another's, or none: what it stands in may be read, but its key is not pinned."""
    right: Json = {"secret": SECRET.hex(), "federation": "floe", "sender": "ann", "key": ANN.key}
    mine = membership_proof(SECRET, "floe", "ann", ANN.key)
    cases: list[tuple[str, Json]] = [
        ("of another key", {"key": EVE.key, "proof": mine}),
        ("of another name", {"sender": "eve", "proof": mine}),
        ("of another federation", {"federation": "other", "proof": mine}),
        ("of another secret", {"secret": fixed("another secret").hex(), "proof": mine}),
        ("none where there is a secret", {"proof": ""}),
        ("of a member, in plaintext", {"secret": "", "proof": mine}),
        ("last bit", {"proof": mine[:-1] + flipped(mine[-1:].encode()).decode()}),
        ("another spelling", {"proof": mine[:-1] + respelled(mine[-1:].encode()).decode()}),
        (
            "the HMAC under the secret itself",
            {"proof": to_text(hmac.digest(SECRET, f"floe\nann\n{ANN.key}".encode(), "sha256"))},
        ),
    ]
    return [{"name": name, **right, **change, "reason": "unknown-key"} for name, change in cases]


def topics() -> list[str]:
    good = "floe/floe/device/ann/status"
    names = [
        "",
        "#",
        "+",
        "$SYS",
        "a/b",
        "a\0",
        "ann\n",
        "\nann",
        "Ann",
        "änn",
        "a.b",
        "a b",
        "a" * 65,
        "\uff41",
        "{x}",
        "..",
        "%u",
    ]
    numbers = ["01", "-1", "+1", "1.0", "1e3", " 1", "", "x", "10000000000", "\u0661"]
    return [
        "", "/", "floe", "floe/", "#", "floe/#", "$SYS/broker/uptime", good + "/", "/" + good, good.upper(),
        good + "\n", good + "\0", "Floe/floe/device/ann/status", "floe/floe/devices/ann/status",
        "floe/floe/lineage/main/to/ann/status",
        *(f"floe/floe/device/{name}/status" for name in names), *(f"floe/{name}/device/ann/status" for name in names),
        *(f"floe/floe/device/ann/main/{number}/manifest" for number in numbers),
        *(f"floe/floe/lineage/main/1/chunk/{NAME}/{number}" for number in numbers),
    ]  # fmt: skip


def ranges() -> list[Json]:
    cases = [
        [[0, 0]],
        [[1, 0]],
        [[0, 4]],
        [[2, 3], [0, 1]],
        [[0, 2], [1, 3]],
        [[3, 4]],
        [[0, 1], [0, 1]],
        [[0, 2**53 - 1]],
    ]
    return [{"count": 3, "ranges": ranges, "reason": "malformed"} for ranges in cases]


def cores() -> list[Json]:
    core: Json = msgspec.to_builtins(UPDATES["chacha20-poly1305"][0])
    cases: list[tuple[str, Json, str]] = [
        ("larger than the cap", {"size": 10_001, "chunks": core["chunks"]}, "oversized"),
        ("chunk_size that does not follow", {"chunk_size": 65_535}, "malformed"),
        ("twice the chunk_size", {"chunk_size": 131_072}, "malformed"),
        ("a hash too many", {"chunks": core["chunks"] * 2}, "malformed"),
        ("a hash too few", {"chunks": []}, "malformed"),
        ("hashes for nothing", {"size": 0}, "malformed"),
    ]
    return [{"name": n, "max_bytes": 10_000, "core": core | change, "reason": r} for n, change, r in cases]
