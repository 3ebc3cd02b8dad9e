"""How a device is, and what it has logged: sealed inside a manifest of kind `telemetry` (`Core.meta`). Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from floe.messages import Hash, Seconds

MAX_LINES = 100
MAX_LINE = 500  # characters

Level = Literal["info", "warning", "error"]
Percent = Annotated[float, Meta(ge=0, le=100)]
Rate = Annotated[float, Meta(ge=0, le=1e15)]  # the bounds keep infinities and NaN out
Celsius = Annotated[float, Meta(ge=-300, le=2000)]
Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Vitals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A member and its machine at one moment; None is what the machine cannot tell.

    `cpu_percent` and `memory_percent` are of the whole machine, `process_bytes` the resident set of Floe's process,
    `disk_...` of the file system with the state folder. `sent_bytes_s` and `received_bytes_s` are those of the
    machine's network without loopback, mean since the sample before. `temperature_c` is the hottest processor sensor's,
    `uptime_s` the process'. `retries`: announcements and chunks sent again since its start. `model_sha256`: the global
    model that it holds.
    """

    cpu_percent: Percent | None = None
    memory_percent: Percent | None = None
    process_bytes: Number | None = None
    disk_percent: Percent | None = None
    disk_free_bytes: Number | None = None
    sent_bytes_s: Rate | None = None
    received_bytes_s: Rate | None = None
    temperature_c: Celsius | None = None
    uptime_s: Seconds | None = None
    retries: Number | None = None
    model_sha256: Hash | None = None


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a device's own log, `age_s` seconds before it was sent: devices' clocks are wrong."""

    age_s: Seconds
    level: Level
    text: Annotated[str, Meta(max_length=MAX_LINE)]


class Telemetry(Vitals, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device says of itself at times: its vitals, and the lines that it has logged since it last did.

    `dropped`: lines before these that found no place.
    """

    lines: Annotated[tuple[Line, ...], Meta(max_length=MAX_LINES)] = ()
    dropped: Number = 0
