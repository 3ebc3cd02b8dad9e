"""Damaged transfers and weights files, each with its reason: one function for one file in invalid/."""

from __future__ import annotations

import hashlib
import struct

import msgspec
from material import UPDATES, Json, draft, fixed, flipped, raw_weights, sealed, weights_file

EMPTY_LINE = '{"age_s":0,"level":"info","text":""}'
SEALED = ("chacha20-poly1305", "aes-256-gcm", "fernet")


def transfers() -> list[Json]:
    """Core, envelope or chunk of a valid transfer, changed in one place; `step` says where it must fail."""
    return [case for suite in SEALED for case in [*_chunks(suite), *_bound(suite), *_keys(suite)]] + _reports()


def _case(name: str, suite: str, step: str, reason: str, **change: object) -> Json:
    return {"name": f"{suite}: {name}", "of": f"update, {suite}", "step": step, "reason": reason, **change}


def _chunks(suite: str) -> list[Json]:
    core, chunk = msgspec.to_builtins(UPDATES[suite][0]), UPDATES[suite][1][0]
    changed = [chunk[:-1], chunk + b"\0", bytes([chunk[0] ^ 1]) + chunk[1:], chunk[:-1] + bytes([chunk[-1] ^ 1]), b""]
    found = []
    for place, bad in enumerate(changed):
        # With the hash of the changed bytes in the core only its length or the seal itself can tell.
        core = core | {"chunks": [hashlib.sha256(bad).hexdigest()]}
        found.append(_case(f"chunk changed ({place})", suite, "chunk", "chunk", sealed=bad.hex()))
        step, reason = ("open", "unsealing") if len(bad) == len(chunk) else ("chunk", "chunk")
        found.append(_case(f"chunk and hash ({place})", suite, step, reason, core=core, sealed=bad.hex()))
    return found


def _bound(suite: str) -> list[Json]:
    core = msgspec.to_builtins(UPDATES[suite][0])
    others = {
        "federation": "other", "lineage": "mine", "epoch": 2, "round": 2, "task": "evaluate", "kind": "model",
        "sender": "eve", "base": "", "salt": "0" * 32, "size": core["size"] + 1, "chunk_size": 131_072,
        "chunks": core["chunks"] * 2, "commitment": "0" * 64,
    }  # fmt: skip
    return [_case(f"another {n}", suite, "key", "unsealing", core=core | {n: v}) for n, v in others.items()]


def _keys(suite: str) -> list[Json]:
    core, envelope = msgspec.to_builtins(UPDATES[suite][0]), msgspec.to_builtins(UPDATES[suite][2])
    key, meta = envelope["key"], core["meta"]
    turned = core | {"meta": flipped(meta[:1].encode()).decode() + meta[1:]}
    changes: list[tuple[str, Json, str]] = [
        ("wrapped key changed", {"key": flipped(key[:1].encode()).decode() + key[1:]}, "unsealing"),
        ("wrapped key cut", {"key": key[:60]}, "unsealing"),
        ("no key", {"key": ""}, "unsealing"),
        ("another recipient", {"to": "mine"}, "unsealing"),
        ("no wrap", {"wrap": "none", "key": ""}, "suite"),
    ]
    found = [_case(name, suite, "key", reason, envelope=envelope | change) for name, change, reason in changes]
    found.append(_case("another secret", suite, "key", "unsealing", secret=fixed("another secret").hex()))
    return [*found, _case("report changed", suite, "report", "unsealing", core=turned)]


def _reports() -> list[Json]:
    reports = [
        ("unknown member", '{"extra":1}', "metrics"),
        ("accuracy of 2", '{"after":{"loss":1,"accuracy":2}}', "metrics"),
        ("negative samples", '{"samples":-1}', "metrics"),
        ("infinite loss", '{"after":{"loss":1e999,"accuracy":1}}', "metrics"),
        ("NaN", '{"after":{"loss":NaN,"accuracy":1}}', "malformed"),
        ("not JSON", "{", "malformed"),
    ]
    suite, found = SEALED[0], []
    for name, report, reason in reports:
        core, _, envelope, _ = sealed(draft(suite), b"", report)
        changed = {"core": msgspec.to_builtins(core), "envelope": msgspec.to_builtins(envelope)}
        found.append(_case(f"report: {name}", suite, "report", reason, **changed))
    return found + _telemetry()


def _telemetry() -> list[Json]:
    reports = [
        ("an update's report", '{"samples":40}', "metrics"),
        ("more than 100 per cent", '{"cpu_percent":100.5}', "metrics"),
        ("bytes below 0", '{"disk_free_bytes":-1}', "metrics"),
        ("bytes in halves", '{"process_bytes":1.5}', "metrics"),
        ("infinite rate", '{"sent_bytes_s":1e999}', "metrics"),
        ("a model that is no hash", '{"model_sha256":"0"}', "metrics"),
        ("an unknown level", '{"lines":[{"age_s":0,"level":"fatal","text":""}]}', "metrics"),
        ("a line from the future", '{"lines":[{"age_s":-1,"level":"info","text":""}]}', "metrics"),
        ("a long line", f'{{"lines":[{{"age_s":0,"level":"info","text":"{"a" * 501}"}}]}}', "metrics"),
        ("101 lines", f'{{"lines":[{",".join([EMPTY_LINE] * 101)}]}}', "metrics"),
        ("NaN", '{"temperature_c":NaN}', "malformed"),
    ]
    found: list[Json] = []
    for name, report, reason in reports:
        core, _, envelope, _ = sealed(draft(SEALED[0], "telemetry"), b"", report)
        changed = {"core": msgspec.to_builtins(core), "envelope": msgspec.to_builtins(envelope)}
        found.append({"name": f"telemetry: {name}", "of": "telemetry", "step": "report", "reason": reason, **changed})
    return found


def weights() -> list[Json]:
    one = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'

    def entry(name: str, shape: str, start: int, stop: int, dtype: str = "F32") -> str:
        return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{stop}]}}'

    def of(*entries: str, data: int = 8) -> bytes:
        return raw_weights("{" + ",".join(entries) + "}", bytes(data))

    good = weights_file({"a": ("F32", [1], bytes(4))})
    cases: list[tuple[str, bytes]] = [
        ("empty", b""),
        ("seven bytes", bytes(7)),
        ("header longer than the file", struct.pack("<Q", 1000) + b"{}"),
        ("header of 2^63 bytes", struct.pack("<Q", 2**63) + b"{}"),
        ("header of 100 MB", struct.pack("<Q", 100_000_000) + b"{}"),
        ("header that is a list", raw_weights("[]", b"")),
        ("header that is not JSON", raw_weights("{", b"")),
        ("header nested deep", raw_weights("[" * 3000 + "]" * 3000, b"")),
        ("name twice", of(one, one, data=4)),
        ("hole at the start", of(entry("a", "[1]", 4, 8))),
        ("hole between", of(one, entry("b", "[1]", 8, 12), data=12)),
        ("overlap", of(one, entry("b", "[1]", 2, 6), data=6)),
        ("the same bytes twice", of(one, entry("b", "[1]", 0, 4), data=4)),
        ("bytes after the last tensor", of(one, data=8)),
        ("data cut", good[:-1]),
        ("shape that does not fill", of(entry("a", "[1]", 0, 8))),
        ("shape of terabytes", of(entry("a", "[1099511627776]", 0, 8))),
        ("shape that wraps around 2^64", of(entry("a", "[4294967296,4294967296]", 0, 0), data=0)),
        ("negative shape", of(entry("a", "[-1]", 0, 4), data=4)),
        ("shape as text", of(entry("a", '""', 0, 4), data=4)),
        ("shape as an object", of(entry("a", "{}", 0, 4), data=4)),
        ("shape with a truth value", of(entry("a", "[true]", 0, 4), data=4)),
        ("nine dimensions", of(entry("a", "[1,1,1,1,1,1,1,1,1]", 0, 4), data=4)),
        ("offsets backwards", of(entry("a", "[0]", 4, 0), data=0)),
        ("unknown dtype", of(entry("a", "[4]", 0, 4, "U8"), data=4)),
        ("pickled dtype", of(entry("a", "[4]", 0, 4, "O"), data=4)),
        ("bfloat16", of(entry("a", "[2]", 0, 4, "BF16"), data=4)),
        ("member too many", of('"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}', data=4)),
        ("member missing", of('"a":{"dtype":"F32","shape":[1]}', data=4)),
        ("empty name", of(entry("", "[1]", 0, 4), data=4)),
        ("name of 257 characters", of(entry("a" * 257, "[1]", 0, 4), data=4)),
        ("metadata that is not text", of('"__metadata__":{"a":1}', data=0)),
        ("metadata that is a list", of('"__metadata__":[]', data=0)),
        ("NaN", weights_file({"a": ("F32", [2], struct.pack("<2f", 1.0, float("nan")))})),
        ("infinity", weights_file({"a": ("F64", [1], struct.pack("<d", float("-inf")))})),
        ("infinity in half", weights_file({"a": ("F16", [1], b"\x00\x7c")})),
        ("more than 1e100", weights_file({"a": ("F64", [2], struct.pack("<2d", 1e100, 1.001e100))})),
        ("less than -1e100", weights_file({"a": ("F64", [1], struct.pack("<d", -1e101))})),
        ("integer over 2^53", weights_file({"a": ("I64", [2], struct.pack("<2q", 2**53, 2**53 + 1))})),
        ("integer under -2^53", weights_file({"a": ("I64", [1], struct.pack("<q", -(2**53) - 1))})),
        ("the least integer", weights_file({"a": ("I64", [1], struct.pack("<q", -(2**63)))})),
    ]  # fmt: skip
    return [{"name": name, "file": content.hex(), "reason": "weights"} for name, content in cases]
