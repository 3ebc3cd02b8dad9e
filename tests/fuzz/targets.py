"""`TARGETS`: every parser of bytes from elsewhere, as a function of bytes. Add a line there for a new one.

A target returns or raises what it is allowed to (`Refused`, unless said otherwise). What it returns is held to
something: a parser that takes an input must have understood it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz import files, wire
from fuzz.inputs import Frame, whole
from helpers.wire import KINDS, golden

from floe.errors import DataError, Refused

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A parser, valid inputs to begin with, what it may raise, and where the JSON in an input is."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[Exception], ...] = (Refused,)
    frame: Frame = whole

    def pool(self, name: str) -> list[bytes]:
        """The seeds, and what is kept of earlier runs."""
        return [*self.seeds(), *(path.read_bytes() for path in kept(name))]


def kept(name: str) -> list[Path]:
    """The corpus of a target."""
    return sorted((CORPUS / name).glob("*"))


def of_json(*names: str, member: str = "") -> Callable[[], list[bytes]]:
    """The cases of golden files, or one member of each, as JSON."""

    def seeds() -> list[bytes]:
        cases = [case for name in names for case in golden(name)]
        return [json.dumps(case[member] if member else case).encode() for case in cases]

    return seeds


def texts_of(name: str, member: str = "") -> Callable[[], list[bytes]]:
    return lambda: [(case[member] if member else case).encode() for case in golden(name)]


TARGETS: dict[str, Target] = {
    "topic": Target(wire.topic, texts_of("valid/topics", "topic")),
    "json": Target(wire.parse_json, of_json("valid/canonical", "valid/messages")),
    "base64url": Target(wire.base64url, texts_of("valid/proofs", "proof")),
    **{f"message-{word}": Target(wire.message(kind), wire.messages_of(word)) for word, kind in KINDS.items()},
    "heard": Target(wire.heard, wire.heard_seeds),
    "schema": Target(wire.schema, lambda: [wire.SCHEMA, b'{"shape":[1,8,8],"classes":10}']),
    "join-code": Target(wire.join_code, wire.join_code_seeds),
    "core": Target(wire.cores, of_json("valid/transfers", member="core")),
    "ranges": Target(wire.ranges, of_json("valid/ranges")),
    "chunk": Target(wire.chunk, wire.chunk_seeds),
    "report": Target(wire.report, texts_of("valid/transfers", "report")),
    "telemetry": Target(wire.telemetry, texts_of("valid/transfers", "report")),
    "weights": Target(files.on_disk(files.model), files.model_seeds, frame=files.header),
    "encoded-update": Target(files.on_disk(files.encoded_update), files.encoded_seeds("int8"), frame=files.header),
    "encoded-model": Target(files.on_disk(files.encoded_model), files.encoded_seeds(""), frame=files.header),
    "npy": Target(files.on_disk(files.npy, ".npy"), files.npy_seeds, (DataError,)),
    "npz": Target(files.on_disk(files.npz, ".npz"), files.npz_seeds, (DataError,)),
}
