"""Messages of the wire in words, with what is to be said of their signature. Pure; keeps first keys and open transfers.

Nothing here is trusted: what does not parse or verify is a line that says so.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from floe.documents import Entry, Head, JoinReply, JoinRequest, RosterCommand, RosterReply
from floe.errors import Refused
from floe.messages import MAX_CHUNKS, Answer, Command, Manifest, Message, Phase, Reply, Round, Status, Want
from floe.roster import Anchor, Roster, check_follows, read_card, read_head
from floe.session import Received
from floe.signing import short, verify
from floe.terminal import size_words
from floe.topics import (
    AggregatorStatus,
    AnswerTo,
    CurrentRoster,
    CurrentRound,
    DeviceChunk,
    DeviceJoin,
    DeviceManifest,
    DeviceStatus,
    DeviceTelemetry,
    DeviceWant,
    EntryTo,
    JoinReplyTo,
    ModelChunk,
    ModelChunkTo,
    ModelManifest,
    ModelManifestTo,
    OperatorCommand,
    OperatorRoster,
    ReplyTo,
    RosterReplyTo,
    Topic,
    WantTo,
    parse,
)
from floe.transfer import name_of

EVERY_S = 1.0
MAX_KNOWN = 1000  # names and transfers remembered, so that made-up ones cost no memory
SHOWN_RANGES = 4
SHOWN_REPORT = 500  # characters: telemetry in plaintext may be a hundred lines
T = TypeVar("T")

KINDS: dict[type[Topic], type[Message]] = {
    DeviceStatus: Status,
    AggregatorStatus: Status,
    DeviceManifest: Manifest,
    DeviceTelemetry: Manifest,
    ModelManifest: Manifest,
    ModelManifestTo: Manifest,
    DeviceWant: Want,
    WantTo: Want,
    CurrentRound: Round,
    AnswerTo: Answer,
    OperatorCommand: Command,
    ReplyTo: Reply,
    CurrentRoster: Head,
    EntryTo: Entry,
    DeviceJoin: JoinRequest,
    JoinReplyTo: JoinReply,
    OperatorRoster: RosterCommand,
    RosterReplyTo: RosterReply,
}
Chunk = DeviceChunk | ModelChunk | ModelChunkTo


@dataclass(frozen=True)
class Line:
    """What is to be shown of one message, or of the chunks of one transfer. `signature` is empty for chunks."""

    topic: str
    kind: str
    sender: str
    text: str
    signature: str
    retained: bool
    bytes: int


@dataclass
class _Count:
    """The chunks of one transfer to one recipient, since the last line about it."""

    topic: str
    sender: str
    seen: set[int] = field(default_factory=set)
    bytes: int = 0
    told: int = 0
    due: float = 0.0


class Watch:
    """What has been heard in one federation."""

    def __init__(self, federation: str, anchor: Anchor | None = None) -> None:
        """`anchor`: where it is known, keys are the roster's and not those that were seen first."""
        self._federation = federation
        self._anchor = anchor
        self._roster: Roster | None = None
        self._keys: OrderedDict[str, str] = OrderedDict()
        self._totals: OrderedDict[str, int] = OrderedDict()
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def message(self, received: Received, now: float) -> list[Line]:
        """The lines that a message calls for: none for most chunks."""
        try:
            topic = parse(received.topic)
        except Refused as refusal:
            return [self._line(received, "?", "?", str(refusal), "BAD")]
        if isinstance(topic, DeviceChunk | ModelChunk | ModelChunkTo):
            return self._chunk(topic, received, now)
        kind, sender = KINDS[type(topic)], _speaker(topic)
        name = kind.__name__.lower()
        if not received.payload:
            return [self._line(received, name, sender, "removed (empty, retained)", "")]
        try:
            message = verify(received.payload, kind)
            return [self._line(received, name, sender, self._words(message), self._signature(message, topic, received))]
        except Refused as refusal:
            return [self._line(received, name, sender, f"{len(received.payload)} bytes", f"BAD {refusal}")]

    def tick(self, now: float) -> list[Line]:
        """Lines about transfers whose chunks came since the last one, each once a second."""
        due = [name for name, count in self._counts.items() if count.told < len(count.seen) and now >= count.due]
        return [self._progress(name, now) for name in due]

    def _chunk(self, topic: Chunk, received: Received, now: float) -> list[Line]:
        if topic.index >= MAX_CHUNKS:
            return [self._line(received, "chunks", _speaker(topic), f"at most {MAX_CHUNKS} are allowed", "BAD chunk")]
        way = received.topic.rpartition("/")[0]
        if way not in self._counts:
            _remember(self._counts, way, _Count(way, _speaker(topic), due=now + EVERY_S))
        count = self._counts[way]
        count.seen.add(topic.index)
        count.bytes += len(received.payload)
        whole = len(count.seen) == self._totals.get(topic.transfer)
        return [self._progress(way, now)] if whole and count.told < len(count.seen) else []

    def _progress(self, way: str, now: float) -> Line:
        count = self._counts[way]
        count.told, count.due = len(count.seen), now + EVERY_S
        total = self._totals.get(way.rpartition("/")[2], "?")
        text = f"{len(count.seen)}/{total} chunks, {size_words(count.bytes)}"
        return Line(f"{way}/...", "chunks", count.sender, text, "", False, count.bytes)

    def _signature(self, message: Message, topic: Topic, received: Received) -> str:
        name = "/".join(str(topic).split("/")[2:4])
        if message.federation != self._federation:
            return f"BAD not-for-us: federation {message.federation!r}"
        if isinstance(message, Head):
            return self._of_head(message, received)
        if message.sender != _speaker(topic):
            return f"BAD not-for-us: {message.sender!r} on the topic of {_speaker(topic)!r}"
        if isinstance(message, JoinRequest):
            return f"ok {short(message.key)}, the key that it asks for"
        first = self._keys.get(name)
        if first is None and self._anchor is None:
            _remember(self._keys, name, message.key)
            return f"ok {short(message.key)}, first key seen"
        if first != message.key:
            expected = "the roster's, as far as it has been seen" if self._anchor else "the first"
            return f"BAD unknown-key: {short(message.key)} is not {expected}"
        if isinstance(message, Entry) and self._anchor is not None:
            card = read_card(message.card, self._anchor)
            self._keys[f"device/{card.member}"] = card.keys.signing
        return f"ok {short(message.key)}"

    def _of_head(self, head: Head, received: Received) -> str:
        """A head is an operator's, on the topic of the aggregator that passes it on."""
        if self._anchor is None:
            return f"ok {short(head.key)}, of an operator; without federation.pub nothing leads to the root"
        try:
            roster = read_head(received.payload.decode(), self._anchor)
            if self._roster is not None:
                check_follows(roster, self._roster)
        except Refused as refusal:
            return f"BAD {refusal}"
        self._roster = roster
        for found in head.aggregators:
            self._keys[f"lineage/{found.lineage}"] = found.signing
        for name, key in roster.operators():
            self._keys[f"operator/{name}"] = key
        return f"ok {short(head.key)}, from the root"

    def _words(self, message: Message) -> str:
        match message:
            case Status(state=state, phase=phase):
                return f"{state}, {_phase(phase)}" if phase else state
            case Round(phase=phase, state=state, base=base, seconds_left=left):
                start = f"from {base.sha256[:12]}" if base else "without a model"
                return f"{_phase(phase)} {state}, {start}, {left:.0f} s left"
            case Want(to=to, transfer=transfer, ranges=ranges):
                return f"asks {to} for {_ranges(ranges)} of {transfer[:12]}"
            case Answer(to=to, transfer=transfer, phase=phase, outcome=outcome, reason=reason, detail=detail):
                said = ": ".join(filter(None, (outcome, reason, detail)))
                return f"to {to}: {_phase(phase)} {said} ({transfer[:12]})"
            case Command(to=to, action=action, rounds=rounds):
                return f"tells {to} to {action}" + (f", {rounds} rounds" if rounds else "")
            case Reply(to=to, done=done, detail=detail, stage=stage, phase=phase):
                return f"to {to}: {'done' if done else 'not done'}: {detail} ({_phase(phase)} {stage})"
            case Head(seq=version, count=count, group=group):
                return f"roster, version {version}, {count} card(s), group key {group}"
            case Entry(to=to, group=group, rotate=rotate):
                return f"entry of {to}, group key {group}" + (", asked for other keys" if rotate else "")
            case JoinRequest(to=to):
                return f"asks {to} to be let in, or for other keys"
            case JoinReply(to=to, state=state, detail=detail):
                return f"to {to}: {': '.join(filter(None, (state, detail)))}"
            case RosterCommand(to=to, action=action, name=name):
                return f"asks {to}: {action} {name}".rstrip()
            case RosterReply(to=to, done=done, detail=detail, members=members):
                return f"to {to}: {'done' if done else 'not done'}: {detail or f'{len(members)} device(s)'}"
            case Manifest(core=core):
                transfer = name_of(core)
                _remember(self._totals, transfer, len(core.chunks))
                size = f"{size_words(core.size)} in {len(core.chunks)} chunks"
                shown = core.meta if len(core.meta) <= SHOWN_REPORT else f"{core.meta[:SHOWN_REPORT]}..."
                report = f", {shown}" if core.suite == "plaintext" else ""
                return f"{core.kind} {transfer[:12]}, {_phase(core.phase)}, {size}, {core.suite}{report}"
        raise AssertionError(message)

    @staticmethod
    def _line(received: Received, kind: str, sender: str, text: str, signature: str) -> Line:
        return Line(received.topic, kind, sender, text, signature, received.retained, len(received.payload))


def _speaker(topic: Topic) -> str:
    """Who alone may write a topic: the name in its fourth level."""
    return str(topic).split("/")[3]


def _phase(phase: Phase) -> str:
    return f"{phase.task} {phase.round}"


def _ranges(ranges: tuple[tuple[int, int], ...]) -> str:
    if not ranges:
        return "the manifest"
    shown = ", ".join(f"{start}-{stop - 1}" for start, stop in ranges[:SHOWN_RANGES])
    return f"chunks {shown}" + (f" and {len(ranges) - SHOWN_RANGES} more ranges" if len(ranges) > SHOWN_RANGES else "")


def _remember(known: OrderedDict[str, T], key: str, value: T) -> None:
    known[key] = value
    if len(known) > MAX_KNOWN:
        known.popitem(last=False)
