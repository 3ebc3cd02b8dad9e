"""The messages of the wire as frozen structs, and the only place where they are validated.

A message is one JSON object: UTF-8, no duplicate keys, no NaN, no unknown fields (`PROTOCOL.md`, "Messages").
What is signed is the payload up to its last member, the signature: `floe.signing` adds and checks it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from floe.errors import Refused
from floe.plan import Plan
from floe.report import Positive

VERSION = 1
MAX_MESSAGE_BYTES = 128 * 1024
MAX_CHUNKS = 1024
MAX_RANGES = 512
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Name = Annotated[str, Meta(pattern=r"\A[a-z0-9_-]{1,64}\Z")]
Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
HashOrEmpty = Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
TransferId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Text64 = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,512}\Z")]  # base64url without padding
Sequence = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]

Suite = Literal["chacha20-poly1305", "aes-256-gcm", "fernet", "plaintext"]
Task = Literal["sums", "init", "train", "threshold", "evaluate"]  # in the order of a chain
Kind = Literal["update", "model", "telemetry"]
Outcome = Literal["accepted", "late", "superseded", "rejected"]
Reason = Literal[
    "",
    "unknown-version",  # the message is of a version this process does not speak
    "malformed",  # not JSON, a field missing, unknown, duplicate or out of range
    "signature",  # the signature does not verify
    "unknown-key",  # another key is pinned or enrolled for this name
    "not-enrolled",  # the roster has no card for this name
    "revoked",  # its card has been revoked
    "roster",  # made under a version of the roster that does not count, or is not known here
    "not-for-us",  # another federation, lineage or recipient
    "suite",  # the local policy does not accept this suite
    "oversized",  # a size over the cap of the receiver
    "round",  # not a round that is open for this device
    "base",  # made from another base model than the round's
    "chunk",  # a chunk that the manifest does not describe
    "unsealing",  # the content key or a chunk does not open
    "weights",  # names, shapes, dtypes or numbers that do not fit
    "schema",  # features that differ in number, name or order
    "metrics",  # a report with impossible numbers
    "too-few-rows",  # sums, or a histogram, over fewer rows than the plan's minimum
    "duplicate",  # the device already has an answer for this round
    "closed",  # the round closed before the transfer was complete
    "newer",  # a later transfer of the same device took its place
    "storage",  # it was accepted, and the disk has damaged it before its round closed
    "device",  # the device says that it could not do its part
]


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=False):
    """Which step of which chain of models: a device takes part in a phase once."""

    lineage: Name
    epoch: Annotated[int, Meta(ge=1, le=2**31)]
    round: Annotated[int, Meta(ge=0, le=2**31)]
    task: Task


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A global model: the SHA-256 of its file, and the transfer that brings it."""

    sha256: Hash
    transfer: TransferId


class Core(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a transfer is, for ever: its name is the hash of this (`transfer.name_of`)."""

    federation: Name
    lineage: Name
    epoch: Annotated[int, Meta(ge=1, le=2**31)]
    round: Annotated[int, Meta(ge=0, le=2**31)]
    task: Task
    kind: Kind
    sender: Name
    base: HashOrEmpty
    suite: Suite
    salt: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    commitment: HashOrEmpty
    size: Count
    chunk_size: Annotated[int, Meta(ge=1, le=2**30)]
    chunks: Annotated[tuple[Hash, ...], Meta(max_length=MAX_CHUNKS)]
    meta: Annotated[str, Meta(max_length=65536)]

    @property
    def phase(self) -> Phase:
        """The phase that the transfer belongs to."""
        return Phase(self.lineage, self.epoch, self.round, self.task)


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who can open a transfer: stands beside the core, and may be renewed without it."""

    to: Annotated[str, Meta(pattern=r"\A([a-z0-9_-]{1,64}|\*)\Z")]
    wrap: Literal["none", "shared", "hpke", "group"]
    key: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,512}\Z")]
    group: Annotated[int, Meta(ge=0, le=2**31)] = 0


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """What every message carries: who speaks, with which key, in which federation, in which order.

    `proof` shows that the holder of the key knows the shared secret (`keyring.Keyring.proof`); empty in plaintext.
    """

    floe: int = VERSION
    federation: Name
    sender: Name
    key: Text64
    proof: Annotated[str, Meta(pattern=r"\A([A-Za-z0-9_-]{43})?\Z")]
    seq: Sequence


class Status(Message, frozen=True, tag="status", kw_only=True):
    """A device or an aggregator, as it is now; also the last will. Retained."""

    state: Literal["online", "training", "idle", "offline"]
    phase: Phase | None = None
    software: Annotated[str, Meta(max_length=64)] = ""


class Round(Message, frozen=True, tag="round", kw_only=True):
    """What the aggregator asks for now, and of whom (`selection.takes_part`). Retained, one a lineage.

    `base` is None only before there is a model. `seconds_left` counts from the arrival: devices' clocks are wrong.
    `staleness` says for how many rounds an update of an earlier `train` phase is still taken. `threshold` is the
    reconstruction error that was agreed for `base`; None: none was.
    """

    phase: Phase
    state: Literal["open", "waiting", "finished"]
    base: Base | None
    plan: Plan
    devices: tuple[Name, ...] = ()
    bar: Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")] = "ffffffffffffffff"
    quorum: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    seconds_left: Seconds = 0.0
    staleness: Annotated[int, Meta(ge=0, le=2**31)] = 0
    roster: Annotated[int, Meta(ge=0, le=2**31)] = 0
    threshold: Positive | None = None


class Manifest(Message, frozen=True, tag="manifest", kw_only=True):
    """Announces a transfer: what it is, the hash of every chunk, and the sealed content key.

    `roster`: the version of the roster that its maker knew; 0 without enrolment.
    """

    core: Core
    envelope: Envelope
    roster: Annotated[int, Meta(ge=0, le=2**31)] = 0


class Want(Message, frozen=True, tag="want", kw_only=True):
    """Asks the holder of a transfer for chunks: half-open ranges [start, stop) of indices."""

    to: Name
    transfer: TransferId
    ranges: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=MAX_RANGES)]


class Answer(Message, frozen=True, tag="answer", kw_only=True):
    """The end of a transfer: only now may its sender forget it.

    `to_key` is the key that signed the manifest which this answers: another's forged copy must not end a transfer.
    """

    to: Name
    to_key: Text64
    transfer: TransferId
    phase: Phase
    outcome: Outcome
    reason: Reason = ""
    detail: Annotated[str, Meta(max_length=500)] = ""


class Command(Message, frozen=True, tag="command", kw_only=True):
    """What an operator asks of an aggregator. `rounds`: with `start`, so many more than are done.

    `plan`: with `plan`, that of the phases to come. `model`: with `promote`, the SHA-256 of the present model to be.
    """

    to: Name
    action: Literal["start", "stop", "pause", "resume", "status", "plan", "promote"]
    rounds: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    plan: Plan | None = None
    model: HashOrEmpty = ""


class Reply(Message, frozen=True, tag="reply", kw_only=True):
    """The answer to the command with sequence number `command`, and how the rounds stand.

    `newest` is the highest sequence number of a command under this key: who has lost count goes on above it. `plan` is
    that of the next phase to open.
    """

    to: Name
    to_key: Text64
    command: Sequence
    newest: Sequence
    done: bool
    detail: Annotated[str, Meta(max_length=500)]
    phase: Phase
    stage: Literal["waiting", "open", "closing", "finished"]
    held: Literal["", "paused", "stopped"]
    last: Annotated[int, Meta(ge=1, le=2**31)]
    online: Count
    expected: Count
    accepted: Count
    refused: Count
    quorum: Count
    seconds_left: Seconds
    plan: Plan


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The JSON of a message without its signature: compact, UTF-8, members in the order of the struct."""
    return msgspec.json.encode(message)


def canonical(value: dict[str, Any]) -> bytes:
    """Canonical JSON (RFC 8785) of an object whose numbers are integers and whose keys are ASCII: what is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(payload: bytes, expected: type[M]) -> M:
    """Parse and check one message whose signature has already been cut off.

    Raises `Refused` with `oversized`, `malformed` or `unknown-version`.
    """
    fields = parse_json(payload)
    if not isinstance(fields, dict):
        raise Refused("malformed", f"expected a JSON object, got {type(fields).__name__}")
    if fields.get("floe") != VERSION:
        raise Refused(
            "unknown-version",
            f"message version {_short(fields.get('floe'))}, this process speaks {VERSION}",
        )
    if "type" not in fields:
        raise Refused("malformed", "the message has no type")
    try:
        return msgspec.convert(fields, expected, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Refused("malformed", f"{expected.__name__.lower()}: {error}") from None


def parse_json(payload: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """JSON as RFC 8259 allows it, less what parsers disagree about: duplicate keys, NaN, half surrogate pairs.

    Raises `Refused` (`oversized`, `malformed`); nesting deeper than the parser's limit is malformed.
    """
    if len(payload) > max_bytes:
        raise Refused("oversized", f"message of {len(payload)} bytes, at most {max_bytes} allowed")
    try:
        text = payload.decode("utf-8")
        found = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # fails for half a pair, which no later use would survive
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"not JSON: {_short(error)}") from None
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
