"""The valid examples: each function returns the content of one file in valid/."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import fields

import msgspec
from material import (
    ANN,
    BASE,
    GLOBAL,
    MAIN,
    MODEL,
    NAME,
    OPA,
    PHASE,
    REPORT,
    ROB,
    SCHEMA,
    SECRET,
    TOLD,
    UPDATE,
    UPDATES,
    Json,
    draft,
    fixed,
    private_bytes,
    raw_weights,
    sealed,
    signed,
    transfer_of,
    weights_file,
)

from floe import messages as m
from floe import topics as t
from floe import transfer
from floe.seal import membership_proof
from floe.selection import EVERYBODY, bar_for, rank, takes_part


def messages() -> list[Json]:
    signers = {who.name: who for who in (ANN, MAIN, OPA, ROB)}
    return [
        {"name": name, "type": name.split("-")[0],
         "private": private_bytes(signers[json.loads(payload)["sender"]]).hex(), "payload": payload.decode()}
        for name, payload in signed().items()
    ]  # fmt: skip


def transfers() -> list[Json]:
    two = bytes(i % 251 for i in range(65_541))
    found = [transfer_of(f"update, {suite}", made, UPDATE) for suite, made in UPDATES.items()]
    found.append(transfer_of("global model", GLOBAL, MODEL))
    found.append(transfer_of("two chunks", sealed(draft("chacha20-poly1305"), two, REPORT), two))
    found.append(transfer_of("telemetry", TOLD, b""))
    found.append(transfer_of("a report alone", sealed(draft("aes-256-gcm"), b"", REPORT), b""))
    return found


def weights() -> list[Json]:
    sums = {
        "sums.count": ("I64", [1], struct.pack("<q", 12)),
        "sums.mean": ("F64", [2], struct.pack("<2d", 0.5, -3.0)),
        "sums.m2": ("F64", [2], struct.pack("<2d", 0.0, 1e100)),
    }
    largest = {
        "f": ("F64", [2], struct.pack("<2d", 1e100, -1e100)),
        "n": ("I64", [2], struct.pack("<2q", 2**53, -(2**53))),
    }
    odd = {
        "empty": ("F32", [0, 3], b""),
        "half": ("F16", [2], struct.pack("<2e", 1.5, -0.0)),
        "é": ("F32", [], b"\0\0\x80\x3f"),
    }
    return [
        {"name": "update", "file": UPDATE.hex(), "metadata": {"schema": SCHEMA},
         "tensors": {"bias": ["F32", [1], [0.5]], "weight": ["F32", [1, 2], [1.0, -2.0]]}},
        {"name": "sums", "file": weights_file(sums, {"schema": SCHEMA}).hex(), "metadata": {"schema": SCHEMA},
         "tensors": {"sums.count": ["I64", [1], [12]], "sums.mean": ["F64", [2], [0.5, -3.0]],
                     "sums.m2": ["F64", [2], [0.0, 1e100]]}},
        {"name": "empty, half, scalar", "file": weights_file(odd).hex(), "metadata": {},
         "tensors": {"empty": ["F32", [0, 3], []], "half": ["F16", [2], [1.5, -0.0]], "é": ["F32", [], [1.0]]}},
        {"name": "the largest numbers", "file": weights_file(largest).hex(), "metadata": {},
         "tensors": {"f": ["F64", [2], [1e100, -1e100]], "n": ["I64", [2], [2**53, -(2**53)]]}},
        {"name": "no tensor", "file": raw_weights("{}", b"").hex(), "metadata": {}, "tensors": {}},
    ]  # fmt: skip


def selection() -> list[Json]:
    mine = rank("ann", PHASE, 42)
    below, above = f"{int(mine, 16) - 1:016x}", f"{int(mine, 16) + 1:016x}"
    bars = ["0" * 16, "7fffffffffffffff", EVERYBODY]
    cases: list[tuple[str, str, list[str]]] = [(device, bar, []) for device in ("ann", "bob", "cy") for bar in bars]
    cases += [("ann", bar, []) for bar in (below, mine, above)]
    cases += [("ann", EVERYBODY, ["bob"]), ("ann", EVERYBODY, ["ann", "bob"]), ("ann", below, ["ann"])]
    return [
        {"device": device, "phase": msgspec.to_builtins(PHASE), "seed": 42, "rank": rank(device, PHASE, 42), "bar": bar,
         "devices": members, "takes_part": takes_part(device, PHASE, 42, bar, members)}
        for device, bar, members in cases
    ]  # fmt: skip


def bars() -> list[Json]:
    fleet = [f"d{i}" for i in range(10)]
    cases: list[tuple[list[str], float, list[str]]] = [
        (fleet, 0.5, []),
        (fleet, 0.1, []),
        (fleet, 0.05, []),
        (fleet, 0.99, []),
        (fleet, 1.0, []),
        (fleet, 0.5, fleet[:4]),
        (["ann"], 0.3, []),
        ([], 0.5, []),
    ]
    return [
        {"online": online, "phase": msgspec.to_builtins(PHASE), "seed": 42, "fraction": fraction, "devices": members,
         "bar": bar, "selected": [device for device in online if takes_part(device, PHASE, 42, bar, members)]}
        for online, fraction, members in cases
        for bar in [bar_for(online, PHASE, 42, fraction, members)]
    ]  # fmt: skip


def proofs() -> list[Json]:
    other = fixed("another secret")
    cases = [(secret, ANN, "floe") for secret in (SECRET, other)] + [(SECRET, MAIN, "floe"), (SECRET, ANN, "other")]
    return [
        {"secret": secret.hex(), "federation": federation, "sender": who.name, "key": who.key,
         "proof": membership_proof(secret, federation, who.name, who.key)}
        for secret, who, federation in cases
    ]  # fmt: skip


def topics() -> list[Json]:
    levels: Json = {
        "federation": "floe",
        "device": "ann",
        "lineage": "main",
        "round": 7,
        "transfer": NAME,
        "index": 0,
        "operator": "opa",
    }
    longest: Json = {
        **levels,
        "federation": "f" * 64,
        "device": "-",
        "operator": "o" * 64,
        "lineage": "0_9",
        "round": 0,
        "index": 9_999_999_999,
    }
    found = []
    for kind in t.ALL:
        for values in (levels, longest):
            used = {name: values[name] for name in (field.name for field in fields(kind))}
            found.append({"topic": str(kind(**used)), "kind": kind.__name__, "levels": used})
    return found


def ranges() -> list[Json]:
    indices = [[], [0], [5], [0, 1, 2], [0, 2], [3, 1, 2, 2, 7], [1023], list(range(0, 20, 2))]
    return [
        {"indices": sorted(set(some)), "ranges": [list(pair) for pair in transfer.to_ranges(some)]} for some in indices
    ]


def sizes() -> list[Json]:
    unit = 65_536
    sizes = [
        0,
        1,
        unit - 1,
        unit,
        unit + 1,
        1024 * unit - 1,
        1024 * unit,
        1024 * unit + 1,
        2048 * unit,
        2048 * unit + 1,
        10**10,
    ]
    return [
        {"size": size, "chunk_size": chunk, "chunks": transfer.chunk_count(size, chunk)}
        for size in sizes
        for chunk in [transfer.chunk_bytes_for(size)]
    ]


def canonical() -> list[Json]:
    values: list[Json] = [
        {"b": 1, "a": [], "c": {"z": "", "y": [1, "2"]}},
        {"meta": '{"x":"\\n"}\t\x00\x1f\x7f\u2028é\U0001f600/"'},
        {"n": 2**53 - 1, "m": 0},
    ]
    return [
        {"value": value, "canonical": text.decode(), "sha256": hashlib.sha256(text).hexdigest()}
        for value in values
        for text in [m.canonical(value)]
    ]


def flow() -> list[Json]:
    """What mosquitto_sub shows of one update: PROTOCOL.md, section 13."""
    said = signed()
    model, update = GLOBAL[1][0], UPDATES["chacha20-poly1305"][1][0]
    steps: list[tuple[t.Topic, bytes, bool]] = [
        (t.DeviceStatus("floe", "ann"), said["status"], True),
        (t.ModelManifest("floe", "main"), said["manifest-model"], True),
        (t.CurrentRound("floe", "main"), said["round"], True),
        (t.ModelChunk("floe", "main", 0, BASE.transfer, 0), model, False),
        (t.DeviceStatus("floe", "ann"), said["status-training"], True),
        (t.DeviceManifest("floe", "ann", "main", 1), said["manifest-update"], False),
        (t.WantTo("floe", "main", "ann"), said["want"], False),
        (t.DeviceChunk("floe", "ann", "main", 1, NAME, 0), update, False),
        (t.AnswerTo("floe", "main", "ann"), said["answer"], False),
    ]
    return [
        {"topic": str(topic), "retain": retain} | ({"text": p.decode()} if p[:1] == b"{" else {"hex": p.hex()})
        for topic, p, retain in steps
    ]
