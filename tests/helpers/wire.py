"""Hypothesis strategies for messages, and small transfers to try things on. Reads the golden files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import strategies as st

from floe import documents  # noqa: F401 (their messages are among the subclasses)
from floe import messages as m
from floe.errors import Refused
from floe.identity import Identity
from floe.keyring import Keyring
from floe.settings import bare

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
ANN = Identity("ann", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
EVE = Identity("eve", Ed25519PrivateKey.from_private_bytes(bytes(32)))
ROB = Identity("rob", generate_private_key(65537, 2048))
SECRET = bytes(range(32, 64))
PHASE = m.Phase("main", 1, 3, "train")
SUITES: list[m.Suite] = ["chacha20-poly1305", "aes-256-gcm", "fernet", "plaintext"]
SEALED = SUITES[:3]
KINDS: dict[str, type[m.Message]] = {str(kind.__struct_config__.tag): kind for kind in m.Message.__subclasses__()}

names = st.from_regex(r"\A[a-z0-9_-]{1,64}\Z")
counts = st.integers(0, 2**53 - 1)
transfers = st.from_regex(r"\A[0-9a-f]{32}\Z")
hashes = st.from_regex(r"\A[0-9a-f]{64}\Z")
texts = st.text(st.characters(exclude_categories=["Cs"]))
phases = st.builds(
    m.Phase,
    lineage=names,
    epoch=st.integers(1, 2**31),
    round=st.integers(0, 2**31),
    task=st.sampled_from(["sums", "init", "train", "evaluate"]),
)
header: dict[str, Any] = {
    "federation": names, "sender": names, "key": st.just(ANN.key), "proof": st.from_regex(r"\A([A-Za-z0-9_-]{43})?\Z"),
    "seq": counts,
}  # fmt: skip
statuses = st.builds(
    m.Status,
    **header,
    state=st.sampled_from(["online", "training", "idle", "offline"]),
    phase=st.none() | phases,
    software=texts.filter(lambda text: len(text) <= 64),
)
wants = st.builds(
    m.Want, **header, to=names, transfer=transfers, ranges=st.lists(st.tuples(counts, counts), max_size=5).map(tuple)
)
answers = st.builds(
    m.Answer,
    **header,
    to=names,
    to_key=st.just(EVE.key),
    transfer=transfers,
    phase=phases,
    outcome=st.sampled_from(["accepted", "late", "superseded", "rejected"]),
    reason=st.sampled_from(["", "weights", "chunk"]),
    detail=texts.filter(lambda text: len(text) <= 500),
)


@contextmanager
def right_or_refused(*reasons: str) -> Iterator[None]:
    """For a block that may be refused, but for one of these reasons."""
    try:
        yield
    except Refused as refusal:
        if refusal.reason not in reasons:
            raise


def golden(name: str) -> Any:
    """The content of a golden file: "valid/messages"."""
    return json.loads((VECTORS / f"{name}.json").read_text())


def least(hint: Any) -> Any:
    """The first value of a few that a type of the wire takes, as JSON; of a struct, one with every field."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        tag = {"type": hint.__struct_config__.tag} if hint.__struct_config__.tag else {}
        hints = get_type_hints(hint, include_extras=True)
        return tag | {name: least(hints[name]) for name in hint.__struct_fields__}
    kind = bare(hint)
    if get_origin(kind) is tuple:
        return [least(one) for one in get_args(kind) if one is not Ellipsis]
    literal = get_args(kind) if get_origin(kind) is Literal else ()
    for value in (*literal, "a", ANN.key, "0" * 16, "0" * 32, "0" * 64, "", 1, 0.5, True, None):
        with suppress(msgspec.ValidationError):
            msgspec.convert(value, hint)
            return value
    raise AssertionError(f"no value for {hint}")


def keyring(suite: m.Suite) -> Keyring:
    return Keyring(suite, None if suite == "plaintext" else SECRET)


def core(suite: m.Suite = "chacha20-poly1305", **changes: Any) -> m.Core:
    """The core of a transfer of one chunk of three bytes, with the fields of `changes` instead."""
    fields = {
        "federation": "floe", "lineage": "main", "epoch": 1, "round": 3, "task": "train", "kind": "update",
        "sender": "ann", "base": "b" * 64, "suite": suite, "salt": "5" * 32, "commitment": "", "size": 3,
        "chunk_size": 65_536, "chunks": ["0" * 64], "meta": "",
    }  # fmt: skip
    return msgspec.convert(fields | changes, m.Core)
