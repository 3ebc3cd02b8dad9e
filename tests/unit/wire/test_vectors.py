"""Floe agrees with the golden files, and so does a reader that knows nothing of Floe."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from helpers.protocol import DOCUMENT
from helpers.wire import VECTORS, golden

from floe import messages as m
from floe import topics, transfer, weights
from floe.decode import decode_model, decode_update
from floe.errors import Refused
from floe.files import hash_of
from floe.keyring import EnrolledKeyring, Keyring, Ring, open_meta
from floe.parcel import Incoming
from floe.report import Report
from floe.seal import sealer, unwrap_shared
from floe.selection import bar_for, rank, takes_part
from floe.signing import verify
from floe.telemetry import Telemetry

KINDS: dict[str, type[m.Message]] = {
    "status": m.Status,
    "round": m.Round,
    "manifest": m.Manifest,
    "want": m.Want,
    "answer": m.Answer,
    "command": m.Command,
    "reply": m.Reply,
}
READER = (
    "check.py", "check_codes.py", "check_encoded.py", "check_enrolled.py", "check_fields.py", "check_sealed.py",
    "hpke9180.py",
)  # fmt: skip


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=str(case.get("name", number))) for number, case in enumerate(golden(name))]


def test_the_golden_files_are_what_their_script_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, VECTORS / "make.py", tmp_path], check=True, timeout=120)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.json")}
    assert made == {p.relative_to(VECTORS): p.read_bytes() for p in VECTORS.rglob("*.json")}


def read_independently(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `check.py` with nothing but its own folder to import from, beside what is installed."""
    command = [sys.executable, "-E", "-s", folder / "check.py"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_independent_reader_agrees_with_every_file() -> None:
    done = read_independently(VECTORS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(list(VECTORS.glob("*valid/*.json")))


def test_the_independent_reader_imports_nothing_of_floe() -> None:
    ours = {path.stem for path in VECTORS.glob("*.py")} - {Path(part).stem for part in READER} | {"floe", "tests"}
    for part in READER:
        text = (VECTORS / part).read_text()
        assert not ours & set(re.findall(r"^(?:import|from) (\w+)", text, re.M))


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("valid/messages", '\\"online\\"', '\\"idle\\"', "InvalidSignature"),
        ("valid/messages", '\\"online\\"', '\\"onlime\\"', "state is not"),
        ("valid/rosters", '\\"count\\":1', '\\"count\\":2', "InvalidSignature"),
        ("valid/trees", "card of ann", "card of amn", "AssertionError"),
        ("valid/joins", '"number": "', '"number": "1', "AssertionError"),
        ("invalid/trees", "card of amn", "card of ann", "is not refused"),
        ("invalid/hpke", "616e6e61", "616e6e", "is not refused"),
    ],
)
def test_the_independent_reader_notices_a_changed_file(
    file: str, old: str, new: str, told: str, tmp_path: Path
) -> None:
    vectors = tmp_path / "tests" / "vectors"
    shutil.copytree(VECTORS, vectors)
    (tmp_path / "floe").mkdir()
    shutil.copy(DOCUMENT, tmp_path / "floe")
    path = vectors / f"{file}.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = read_independently(vectors)
    assert done.returncode == 1, done.stdout
    assert told in done.stdout


@pytest.mark.parametrize("case", cases("valid/messages"))
def test_a_valid_message_is_read_and_signed_again_to_the_same_bytes(case: dict[str, str]) -> None:
    payload = case["payload"].encode()
    message = verify(payload, KINDS[case["type"]])
    assert payload.startswith(m.encode(message)[:-1])


@pytest.mark.parametrize("case", cases("invalid/messages"))
def test_an_invalid_message_is_refused_with_its_reason(case: dict[str, str]) -> None:
    with pytest.raises(Refused) as refusal:
        verify(base64.b64decode(case["payload"]), KINDS[case["type"]])
    assert refusal.value.reason == case["reason"]


def ring_of(case: dict[str, Any], suite: m.Suite) -> Keyring:
    """The receiver's keyring: enrolled where the case has a private key."""
    secret = bytes.fromhex(case["secret"]) or None
    if "private" not in case:
        return Keyring(suite, None if case["content_key"] == "" else secret)
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["private"]))
    ring = Ring(version=7, group=case.get("group", 0), group_key=bytes.fromhex(case.get("group_key", "")))
    return EnrolledKeyring("chacha20-poly1305", secret, private, ring)


@pytest.mark.parametrize("case", cases("valid/transfers"))
def test_a_valid_transfer_opens(case: dict[str, Any], tmp_path: Path) -> None:
    core, envelope = msgspec.convert(case["core"], m.Core), msgspec.convert(case["envelope"], m.Envelope)
    assert transfer.name_of(core) == case["transfer"]
    opened = ring_of(case, core.suite).open(core, envelope)
    assert opened.bound.hex() == case["bound"]
    assert (opened.chunk_key.hex(), opened.meta_key.hex()) == (case["chunk_key"], case["meta_key"])
    assert opened.open_meta(core.meta) == case["report"]
    payload = bytes.fromhex(case["payload"]) if "payload" in case else bytes(i % 251 for i in range(core.size))
    incoming = Incoming(core, opened, tmp_path / "part")
    for index in range(len(core.chunks)):
        piece = payload[index * core.chunk_size : (index + 1) * core.chunk_size]
        incoming.add(index, bytes.fromhex(case["chunks"][index]) if "chunks" in case else opened.seal(index, piece))
    if core.size:
        assert incoming.finish() == hashlib.sha256(payload).hexdigest()
        assert incoming.path.read_bytes() == payload


@pytest.mark.parametrize("case", cases("invalid/transfers"))
def test_a_changed_transfer_is_refused_where_its_case_says(case: dict[str, Any], tmp_path: Path) -> None:
    valid = next(one for one in golden("valid/transfers") if one["name"] == case["of"])
    core = msgspec.convert(case.get("core", valid["core"]), m.Core)
    envelope = msgspec.convert(case.get("envelope", valid["envelope"]), m.Envelope)
    steps: list[str] = []
    with pytest.raises(Refused) as refusal:
        _receive(core, envelope, ring_of(valid | case, core.suite), bytes.fromhex(case.get("sealed", "")), steps)
    assert (steps[-1], refusal.value.reason) == (case["step"], case["reason"])


def _receive(core: m.Core, envelope: m.Envelope, keyring: Keyring, sealed: bytes, steps: list[str]) -> None:
    """What a receiver does with a transfer whose chunk 0 is `sealed`; `steps` tells how far it came."""
    steps.append("key")
    opened = keyring.open(core, envelope)
    steps.append("report")
    open_meta(opened, core, Telemetry if core.kind == "telemetry" else Report)
    steps.append("chunk")
    transfer.Assembly(core).check(0, sealed)
    steps.append("open")
    opened.open(0, sealed)


@pytest.mark.parametrize("suite", ["chacha20-poly1305", "aes-256-gcm", "fernet"])
def test_a_content_key_made_for_another_core_is_not_committed_to(suite: str) -> None:
    valid = next(one for one in golden("valid/transfers") if one["name"] == f"update, {suite}")
    core, envelope = msgspec.convert(valid["core"], m.Core), msgspec.convert(valid["envelope"], m.Envelope)
    key = unwrap_shared(core, envelope, bytes.fromhex(valid["secret"]))
    assert sealer(core, key).commitment == core.commitment
    assert sealer(core, key[:-1] + bytes([key[-1] ^ 1])).commitment != core.commitment


@pytest.mark.parametrize("case", cases("valid/weights"))
def test_a_valid_weights_file_is_read(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(bytes.fromhex(case["file"]))
    assert dict(weights.check_numbers(path).metadata) == case["metadata"]
    arrays = weights.read(path)
    assert arrays.keys() == case["tensors"].keys()
    for name, (dtype, shape, values) in case["tensors"].items():
        assert (weights.CODES[arrays[name].dtype], list(arrays[name].shape)) == (dtype, shape)
        np.testing.assert_array_equal(arrays[name].ravel(), values)


@pytest.mark.parametrize("case", cases("invalid/weights"))
def test_an_invalid_weights_file_is_refused_with_its_reason(case: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(bytes.fromhex(case["file"]))
    with pytest.raises(Refused) as refusal:
        weights.check_numbers(path)
    assert refusal.value.reason == case["reason"]


def decoded(case: dict[str, str], like: str, folder: Path) -> str:
    """The SHA-256 of the decoded file, whose numbers have been checked; it is `out` in the folder."""
    names = {"encoded": case["file"], "base": case["base"], "like": like}
    paths = {name: folder / name for name in names}
    for name, path in paths.items():
        path.write_bytes(bytes.fromhex(names[name]))
    if case["base"]:
        layout = weights.read_layout_of(paths["like"])
        coding: Any = case["coding"]
        sha256 = decode_update(paths["encoded"], folder / "out", base=paths["base"], layout=layout, coding=coding)
    else:
        sha256 = decode_model(paths["encoded"], folder / "out", 10**7)
    weights.check_numbers(folder / "out")
    return sha256


@pytest.mark.parametrize("case", cases("valid/encoded"))
def test_a_valid_encoded_file_is_decoded_to_the_last_byte(case: dict[str, Any], tmp_path: Path) -> None:
    sha256 = decoded(case, case.get("decoded", ""), tmp_path)
    assert sha256 == hash_of(tmp_path / "out")
    if "decoded" in case:
        assert (tmp_path / "out").read_bytes().hex() == case["decoded"]
    else:
        (found,), rule = weights.read(tmp_path / "out").values(), case["decoded_rule"]["w"]
        assert list(found.shape) == rule["shape"]
        last = len(rule["last"])
        assert (set(found[:-last].tolist()), found[-last:].tolist()) == ({rule["first"]}, rule["last"])


@pytest.mark.parametrize("case", cases("invalid/encoded"))
def test_an_invalid_encoded_file_is_refused_with_its_reason(case: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        decoded(case, case["like"], tmp_path)
    assert refusal.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("valid/proofs"))
def test_a_proof_of_membership_is_as_the_case_says(case: dict[str, str]) -> None:
    ring = Keyring("chacha20-poly1305", bytes.fromhex(case["secret"]))
    assert ring.proof(case["federation"], case["sender"], case["key"]) == case["proof"]
    assert ring.proves(_status(case))


@pytest.mark.parametrize("case", cases("invalid/proofs"))
def test_under_another_proof_no_key_is_pinned(case: dict[str, str]) -> None:
    secret = bytes.fromhex(case["secret"])
    assert not Keyring("chacha20-poly1305" if secret else "plaintext", secret or None).proves(_status(case))
    assert case["reason"] == "unknown-key"


def _status(case: dict[str, str]) -> m.Status:
    header = {name: case[name] for name in ("federation", "sender", "key", "proof")}
    return msgspec.convert({"type": "status", **header, "seq": 1, "state": "online"}, m.Status)


@pytest.mark.parametrize("case", cases("valid/selection"))
def test_who_takes_part_is_as_the_case_says(case: dict[str, Any]) -> None:
    phase = msgspec.convert(case["phase"], m.Phase)
    assert rank(case["device"], phase, case["seed"]) == case["rank"]
    assert takes_part(case["device"], phase, case["seed"], case["bar"], case["devices"]) == case["takes_part"]


@pytest.mark.parametrize("case", cases("valid/bars"))
def test_the_bar_is_as_the_case_says(case: dict[str, Any]) -> None:
    phase = msgspec.convert(case["phase"], m.Phase)
    bar = bar_for(case["online"], phase, case["seed"], case["fraction"], case["devices"])
    chosen = [d for d in case["online"] if takes_part(d, phase, case["seed"], bar, case["devices"])]
    assert (bar, chosen) == (case["bar"], case["selected"])


@pytest.mark.parametrize("case", golden("valid/topics"), ids=lambda case: case["topic"][:60])
def test_a_valid_topic_is_parsed_and_built(case: dict[str, Any]) -> None:
    topic = getattr(topics, case["kind"])(**case["levels"])
    assert str(topic) == case["topic"]
    assert topics.parse(case["topic"]) == topic


@pytest.mark.parametrize("text", golden("invalid/topics"), ids=lambda text: repr(text)[:60])
def test_an_invalid_topic_is_malformed(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        topics.parse(text)
    assert refusal.value.reason == "malformed"


@pytest.mark.parametrize("case", cases("valid/ranges"))
def test_ranges_cover_their_indices(case: dict[str, Any]) -> None:
    ranges = tuple((start, stop) for start, stop in case["ranges"])
    assert transfer.to_ranges(case["indices"]) == ranges
    assert list(transfer.from_ranges(ranges, 1024)) == case["indices"]


@pytest.mark.parametrize("case", cases("invalid/ranges"))
def test_invalid_ranges_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        transfer.from_ranges(tuple((start, stop) for start, stop in case["ranges"]), case["count"])
    assert refusal.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("invalid/cores"))
def test_an_invalid_core_is_refused_with_its_reason(case: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        transfer.check_core(msgspec.convert(case["core"], m.Core), case["max_bytes"])
    assert refusal.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("valid/sizes"))
def test_size_gives_chunk_size_and_number_of_chunks(case: dict[str, int]) -> None:
    assert transfer.chunk_bytes_for(case["size"]) == case["chunk_size"]
    assert transfer.chunk_count(case["size"], case["chunk_size"]) == case["chunks"]


@pytest.mark.parametrize("case", cases("valid/canonical"))
def test_canonical_json_is_as_the_case_says(case: dict[str, Any]) -> None:
    assert m.canonical(case["value"]).decode() == case["canonical"]
