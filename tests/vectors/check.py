"""An independent reader of valid/*.json and invalid/*.json: written from PROTOCOL.md alone, it imports nothing of Floe.

    python tests/vectors/check.py

Verifies every signature, name, key, seal, roster, weights file, selection, topic and range, and that what is invalid
is refused; prints what it checked, one line a file, and ends with 1 at the first that disagrees. Needs the packages
cryptography and zstandard. Reads the files beside it, and the tables of PROTOCOL.md.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

import check_enrolled as enrolled
from check_codes import codes, read_code
from check_encoded import decoded, encoded
from check_fields import check_struct, decode64, parse
from check_sealed import canonical, changed_transfer, hkdf, hpke, opened_hpke, transfers, verify
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

Json = dict[str, Any]
NAME = "[a-z0-9_-]{1,64}"
NUMBER = "(?:0|[1-9][0-9]{0,9})"


def messages(case: Json) -> None:
    message = verify(case["payload"].encode(), case["type"])
    private = bytes.fromhex(case["private"])
    if len(private) == 32:
        public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    else:
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        public = load_der_private_key(private, None).public_key().public_bytes(*form)
    assert decode64(message["key"]) == public
    assert message["federation"] == "floe"


def payloads(case: Json) -> None:
    verify(base64.b64decode(case["payload"]), case["type"])


def weights(case: Json) -> None:
    header, metadata, values = read_weights(bytes.fromhex(case["file"]))
    assert metadata == case["metadata"]
    assert {name: [header[name]["dtype"], header[name]["shape"], values[name]] for name in header} == case["tensors"]


def read_weights(content: bytes) -> tuple[Json, Json, dict[str, list[float]]]:
    """Section 8: header, metadata and numbers of a file that breaks none of its rules."""
    (length,) = struct.unpack_from("<Q", content)
    assert (length % 8, length <= 8_388_608, 8 + length <= len(content)) == (0, True, True), "header"
    header, data = parse(content[8 : 8 + length], 8_388_608), content[8 + length :]
    metadata = header.pop("__metadata__", {})
    assert all(isinstance(value, str) for value in dict.values(metadata)), "metadata"
    end, found = 0, {}
    for name in sorted(header):
        entry = header[name]
        assert 1 <= len(name) <= 256, name
        assert entry.keys() == {"dtype", "shape", "data_offsets"}, name
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        assert list.__len__(shape) <= 8, "shape"
        assert all(type(number) is int and number >= 0 for number in (*shape, start, stop)), "numbers"
        letter = {"F16": "e", "F32": "f", "F64": "d", "I64": "q"}[entry["dtype"]]
        assert (start, stop - start) == (end, math.prod(shape) * struct.calcsize(f"<{letter}")), "offsets"
        found[name] = list(struct.unpack(f"<{math.prod(shape)}{letter}", data[start:stop]))
        assert all(abs(value) <= (2**53 if letter == "q" else 1e100) for value in found[name]), name
        end = stop
    assert end == len(data)
    return header, metadata, found


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
    "DeviceTelemetry": DEVICE + "/{lineage}/telemetry",
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
    assert all(a[1] < b[0] for a, b in pairwise(case["ranges"]))


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
        message = verify(case["text"].encode(), json.loads(case["text"])["type"])
        assert message["sender"] in case["topic"].split("/")
    else:
        assert re.fullmatch(f"floe/.*/chunk/[0-9a-f]{{32}}/{NUMBER}", case["topic"])


def text_topic(text: str) -> None:
    """Section 2."""
    levels = {"round": NUMBER, "index": NUMBER, "transfer": "[0-9a-f]{32}"}
    regexes = [re.sub("{([a-z]+)}", lambda level: levels.get(level[1], NAME), topic) for topic in PATTERNS.values()]
    assert any(re.fullmatch(regex, text) for regex in regexes), "not a topic"


def wanted(case: Json) -> None:
    """Section 12: the ranges of a want."""
    pairs = case["ranges"]
    assert all(start < stop <= case["count"] for start, stop in pairs), "empty, or beyond the end"
    assert all(a[1] <= b[0] for a, b in pairwise(pairs)), "not ascending"


def cores(case: Json) -> None:
    """Section 12, points 9 and 10."""
    core = case["core"]
    check_struct(core, "Core")
    assert core["size"] <= case["max_bytes"], "oversized"
    sizes({"size": core["size"], "chunk_size": core["chunk_size"], "chunks": len(core["chunks"])})


def pinnable(case: Json) -> None:
    """Section 4.2: in plaintext no proof is right but the empty one."""
    assert case["secret"] or case["proof"] == "", "a proof in plaintext"
    proofs(case)


def changed(case: Json) -> None:
    valid = json.loads((HERE / "valid" / "transfers.json").read_text())
    changed_transfer(next(one for one in valid if one["name"] == case["of"]) | case)


HERE = Path(__file__).parent
VALID: dict[str, Callable[[Json], None]] = {
    "bars": bars,
    "canonical": canonicals,
    "codes": codes,
    "documents": enrolled.documents,
    "encoded": encoded,
    "entries": enrolled.entries,
    "flow": flow,
    "hpke": hpke,
    "joins": enrolled.joins,
    "messages": messages,
    "proofs": proofs,
    "ranges": ranges,
    "rosters": enrolled.rosters,
    "selection": selection,
    "sizes": sizes,
    "topics": topics,
    "transfers": transfers,
    "trees": enrolled.trees,
    "weights": weights,
}
INVALID: dict[str, Callable[[Any], None]] = {
    "codes": lambda case: read_code(case["text"]),
    "cores": cores,
    "documents": payloads,
    "encoded": decoded,
    "endorsements": enrolled.endorsements,
    "entries": enrolled.opened_entry,
    "hpke": opened_hpke,
    "joins": enrolled.opened_join,
    "messages": payloads,
    "proofs": pinnable,
    "ranges": wanted,
    "rosters": enrolled.changed_roster,
    "topics": text_topic,
    "transfers": changed,
    "trees": enrolled.changed_tree,
    "weights": lambda case: read_weights(bytes.fromhex(case["file"])),
}


def main(folder: Path) -> int:
    """Check every file; 1 if one disagrees or is not known."""
    for kind, checks in (("valid", VALID), ("invalid", INVALID)):
        paths = sorted((folder / kind).glob("*.json"))
        for path in paths:
            cases = json.loads(path.read_text())
            for number, case in enumerate(cases):
                fault = fault_of(checks[path.stem], case)
                if bool(fault) == (kind == "valid"):
                    print(f"{kind}/{path.name}, case {number}, {case}"[:300], fault or "is not refused", sep=": ")
                    return 1
            print(f"{kind}/{path.name}: {len(cases)} agree")
        if {path.stem for path in paths} != checks.keys():
            print(f"{kind}: not the files that this reader knows")
            return 1
    return 0


def fault_of(check: Callable[[Any], object], case: object) -> str:
    """What is wrong with a case; empty if nothing is."""
    try:
        check(case)
    except (AssertionError, IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    except (RecursionError, InvalidSignature, InvalidTag, InvalidToken, UnsupportedAlgorithm) as error:
        return type(error).__name__
    return ""


if __name__ == "__main__":
    sys.exit(main(HERE))
