"""Topics as types: `str(topic)` builds, `parse(text)` is its inverse, `filter_of` gives the subscription.

Who writes a topic is in its third level: `device/<id>/` is written by that device alone, `lineage/<lineage>/` by
that lineage's aggregator, `operator/<name>/` by that operator. So an ACL needs three patterns, and a receiver knows
from the topic whose signature to ask for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar, get_type_hints

from floe.errors import Refused

NAME = r"[a-z0-9_-]{1,64}"
_LEVELS = {str: NAME, int: "0|[1-9][0-9]{0,9}"}


@dataclass(frozen=True)
class Topic:
    """A topic of Floe. Names are `[a-z0-9_-]{1,64}`, numbers decimal without leading zeros."""

    PATTERN: ClassVar[str]

    federation: str

    def __post_init__(self) -> None:
        if _REGEXES[type(self)].fullmatch(str(self)) is None:
            raise ValueError(f"not a topic of Floe: {str(self)!r} (levels are {NAME})")

    def __str__(self) -> str:
        return self.PATTERN.format(**{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class DeviceStatus(Topic):
    """`Status` of a device, retained; also its last will."""

    PATTERN = "floe/{federation}/device/{device}/status"
    device: str


@dataclass(frozen=True)
class DeviceManifest(Topic):
    """`Manifest` of an update."""

    PATTERN = "floe/{federation}/device/{device}/{lineage}/{round}/manifest"
    device: str
    lineage: str
    round: int


@dataclass(frozen=True)
class DeviceChunk(Topic):
    """One sealed chunk of an update."""

    PATTERN = "floe/{federation}/device/{device}/{lineage}/{round}/chunk/{transfer}/{index}"
    device: str
    lineage: str
    round: int
    transfer: str
    index: int


@dataclass(frozen=True)
class DeviceWant(Topic):
    """`Want` of a device: chunks of a global model."""

    PATTERN = "floe/{federation}/device/{device}/{lineage}/want"
    device: str
    lineage: str


@dataclass(frozen=True)
class DeviceTelemetry(Topic):
    """`Manifest` of a device's telemetry, which has no chunks."""

    PATTERN = "floe/{federation}/device/{device}/{lineage}/telemetry"
    device: str
    lineage: str


@dataclass(frozen=True)
class AggregatorStatus(Topic):
    """`Status` of an aggregator, retained; also its last will."""

    PATTERN = "floe/{federation}/lineage/{lineage}/status"
    lineage: str


@dataclass(frozen=True)
class CurrentRound(Topic):
    """`Round`, retained: what the aggregator asks for now."""

    PATTERN = "floe/{federation}/lineage/{lineage}/round"
    lineage: str


@dataclass(frozen=True)
class ModelManifest(Topic):
    """`Manifest` of the newest global model, retained."""

    PATTERN = "floe/{federation}/lineage/{lineage}/model"
    lineage: str


@dataclass(frozen=True)
class ModelChunk(Topic):
    """One sealed chunk of a global model, published once for everybody."""

    PATTERN = "floe/{federation}/lineage/{lineage}/{round}/chunk/{transfer}/{index}"
    lineage: str
    round: int
    transfer: str
    index: int


@dataclass(frozen=True)
class WantTo(Topic):
    """`Want` of the aggregator: chunks of a device's update."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{device}/want"
    lineage: str
    device: str


@dataclass(frozen=True)
class AnswerTo(Topic):
    """`Answer` of the aggregator to a device."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{device}/answer"
    lineage: str
    device: str


@dataclass(frozen=True)
class ModelManifestTo(Topic):
    """`Manifest` of a global model, for a device that asked for it."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{device}/model"
    lineage: str
    device: str


@dataclass(frozen=True)
class ModelChunkTo(Topic):
    """One sealed chunk of a global model, for a device that asked for it."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{device}/{round}/chunk/{transfer}/{index}"
    lineage: str
    device: str
    round: int
    transfer: str
    index: int


@dataclass(frozen=True)
class OperatorCommand(Topic):
    """`Command` of an operator to an aggregator."""

    PATTERN = "floe/{federation}/operator/{operator}/{lineage}/command"
    operator: str
    lineage: str


@dataclass(frozen=True)
class ReplyTo(Topic):
    """`Reply` of the aggregator to an operator."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{operator}/reply"
    lineage: str
    operator: str


@dataclass(frozen=True)
class CurrentRoster(Topic):
    """`Head` of the roster, retained: signed by an operator, published by each aggregator."""

    PATTERN = "floe/{federation}/lineage/{lineage}/roster"
    lineage: str


@dataclass(frozen=True)
class EntryTo(Topic):
    """`Entry` of a device, retained."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{device}/entry"
    lineage: str
    device: str


@dataclass(frozen=True)
class DeviceJoin(Topic):
    """`JoinRequest` of a device that wants to be let in, or other keys."""

    PATTERN = "floe/{federation}/device/{device}/{lineage}/join"
    device: str
    lineage: str


@dataclass(frozen=True)
class JoinReplyTo(Topic):
    """`JoinReply` of the aggregator to a device that asked."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{device}/join"
    lineage: str
    device: str


@dataclass(frozen=True)
class OperatorRoster(Topic):
    """`RosterCommand` of an operator."""

    PATTERN = "floe/{federation}/operator/{operator}/{lineage}/roster"
    operator: str
    lineage: str


@dataclass(frozen=True)
class RosterReplyTo(Topic):
    """`RosterReply` of the aggregator to an operator."""

    PATTERN = "floe/{federation}/lineage/{lineage}/to/{operator}/roster"
    lineage: str
    operator: str


ALL: tuple[type[Topic], ...] = (
    DeviceStatus,
    DeviceManifest,
    DeviceChunk,
    DeviceWant,
    DeviceTelemetry,
    AggregatorStatus,
    CurrentRound,
    ModelManifest,
    ModelChunk,
    WantTo,
    AnswerTo,
    ModelManifestTo,
    ModelChunkTo,
    OperatorCommand,
    ReplyTo,
    CurrentRoster,
    EntryTo,
    DeviceJoin,
    JoinReplyTo,
    OperatorRoster,
    RosterReplyTo,
)


def parse(text: str) -> Topic:
    """The inverse of `str(topic)`. Raises `Refused("malformed", ...)` for anything else."""
    for kind in _BY_LEVELS.get(text.count("/"), ()):
        if match := _REGEXES[kind].fullmatch(text):
            types = _TYPES[kind]
            return kind(**{name: types[name](value) for name, value in match.groupdict().items()})
    raise Refused("malformed", f"not a topic of Floe: {text[:200]!r}")


def filter_of(kind: type[Topic], **levels: str) -> str:
    """The MQTT topic filter (MQTT 5, 4.7) for a kind of topic: levels that are not given become `+`.

    Levels that this kind has not are passed over, so that one set of names does for many kinds.
    """
    return kind.PATTERN.format(**{f.name: levels.get(f.name, "+") for f in fields(kind)})


def _compile(kind: type[Topic]) -> re.Pattern[str]:
    named = {name: f"(?P<{name}>{_LEVELS[level]})" for name, level in _TYPES[kind].items()}
    return re.compile(kind.PATTERN.format(**named))


_TYPES: dict[type[Topic], dict[str, type]] = {
    kind: {f.name: get_type_hints(kind)[f.name] for f in fields(kind)} for kind in ALL
}
_REGEXES = {kind: _compile(kind) for kind in ALL}
_BY_LEVELS = {
    count: [kind for kind in ALL if kind.PATTERN.count("/") == count]
    for count in {kind.PATTERN.count("/") for kind in ALL}
}
