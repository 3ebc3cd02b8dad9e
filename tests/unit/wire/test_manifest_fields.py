"""Any field of a manifest, with another value: the signature does not fit, the name differs, the chunks stay shut."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from helpers.wire import ANN, SECRET, SUITES, core, golden, hashes, names, texts, transfers
from hypothesis import assume, given
from hypothesis import strategies as st

from floe import messages as m
from floe.errors import Refused
from floe.keyring import Keyring, open_meta
from floe.report import Report
from floe.seal import sealer, wrap_shared
from floe.signing import to_text, verify
from floe.transfer import Assembly, check_core, name_of

KEY = bytes(range(64, 96))
CHUNK = b"abc"
words = st.sampled_from
CORE: dict[str, st.SearchStrategy[Any]] = {
    "federation": names, "lineage": names, "epoch": st.integers(1, 2**31), "round": st.integers(0, 2**31),
    "task": words(["sums", "init", "train", "evaluate"]), "kind": words(["update", "model"]), "sender": names,
    "base": hashes | st.just(""), "suite": words(SUITES), "salt": transfers, "commitment": hashes | st.just(""),
    "size": st.integers(0, 2**53 - 1), "chunk_size": st.integers(1, 2**30), "chunks": st.lists(hashes, max_size=3),
    "meta": texts.filter(lambda text: len(text) < 1000) | st.binary(max_size=40).map(to_text),
}  # fmt: skip
ENVELOPE: dict[str, st.SearchStrategy[Any]] = {
    "to": names | st.just("*"), "wrap": words(["none", "shared", "hpke", "group"]),
    "key": st.binary(max_size=60).map(to_text), "group": st.integers(0, 2**31),
}  # fmt: skip
HEADER: dict[str, st.SearchStrategy[Any]] = {
    "federation": names, "sender": names, "key": st.binary(min_size=32, max_size=32).map(to_text),
    "proof": st.just("") | st.binary(min_size=32, max_size=32).map(to_text), "seq": st.integers(0, 2**53 - 1),
    "roster": st.integers(0, 2**31), "floe": st.integers(0, 9),
    "type": words(["status", "round", "want", "answer", "command", "reply"]),
}  # fmt: skip
ANY = {
    **{(name,): values for name, values in HEADER.items()},
    **{("core", name): values for name, values in CORE.items()},
    **{("envelope", name): values for name, values in ENVELOPE.items()},
}
changes = st.sampled_from(sorted(ANY)).flatmap(lambda path: st.tuples(st.just(path), ANY[path]))
core_changes = st.sampled_from(sorted(CORE)).flatmap(lambda name: st.tuples(st.just(name), CORE[name]))


def whole_core(suite: m.Suite) -> m.Core:
    """A transfer of one chunk with everything in its place."""
    seal = sealer(core(suite), KEY)
    sealed = hashlib.sha256(seal.seal(0, CHUNK)).hexdigest() if suite != "fernet" else "0" * 64
    return core(suite, commitment=seal.commitment, meta=seal.seal_meta('{"samples":3}'), chunks=[sealed])


def manifest(suite: m.Suite = "chacha20-poly1305") -> m.Manifest:
    described = whole_core(suite)
    envelope = wrap_shared(described, KEY, SECRET, "main")
    header = {"federation": "floe", "sender": "ann", "key": ANN.key, "proof": "", "seq": 1}
    return m.Manifest(**header, core=described, envelope=envelope)


def test_every_field_of_a_manifest_is_tried() -> None:
    fields = msgspec.to_builtins(manifest())
    paths = {(name,) for name in fields} | {(n, inner) for n in ("core", "envelope") for inner in fields[n]}
    assert set(ANY) == paths - {("core",), ("envelope",)}


@given(changes)
def test_a_field_that_was_changed_after_signing_is_refused(change: tuple[tuple[str, ...], Any]) -> None:
    path, value = change
    payload = ANN.sign(manifest())
    fields = json.loads(payload)
    place = fields[path[0]] if len(path) == 2 else fields
    assume(place[path[-1]] != value)
    place[path[-1]] = value
    with pytest.raises(Refused):
        verify(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode(), m.Manifest)
    assert verify(payload, m.Manifest) == manifest()


@pytest.mark.parametrize("suite", SUITES)
@given(core_changes)
def test_a_core_that_differs_in_a_field_is_another_transfer(suite: m.Suite, change: tuple[str, Any]) -> None:
    name, value = change
    mine = whole_core(suite)
    fields = msgspec.to_builtins(mine) | {name: value}
    other = msgspec.convert(fields, m.Core)
    assert (name_of(other) == name_of(mine)) == (other == mine)


@pytest.mark.parametrize("suite", ["chacha20-poly1305", "aes-256-gcm"])
@given(core_changes)
def test_under_a_core_that_differs_in_a_field_nothing_is_taken(suite: m.Suite, change: tuple[str, Any]) -> None:
    """Signed by a member even: as the aggregator receives it, with the chunk of the transfer as it was."""
    name, value = change
    mine = whole_core(suite)
    envelope, chunk = wrap_shared(mine, KEY, SECRET, "main"), sealer(mine, KEY).seal(0, CHUNK)
    assert receive(mine, envelope, chunk) == CHUNK
    other = msgspec.convert(msgspec.to_builtins(mine) | {name: value}, m.Core)
    assume(other != mine)
    with pytest.raises(Refused):
        receive(other, envelope, chunk)


def receive(found: m.Core, envelope: m.Envelope, chunk: bytes) -> bytes:
    check_core(found, 10**6)
    opened = Keyring("chacha20-poly1305", SECRET).open(found, envelope)
    open_meta(opened, found, Report)
    Assembly(found).check(0, chunk)
    return opened.open(0, chunk)


@pytest.mark.parametrize(
    "payload", [case["payload"] for case in golden("valid/messages") if case["type"] == "manifest"], ids=len
)
def test_no_bit_of_a_golden_manifest_can_be_another(payload: str) -> None:
    raw = payload.encode()
    for place in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(Refused):
            verify(bytes(changed), m.Manifest)
