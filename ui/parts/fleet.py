"""The table of all devices: which of them to show, and its columns. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from ui.parts.endings import missed_words
from ui.parts.grid import Kind
from ui.queries.fleet import Device, LastRound

Columns = dict[str, tuple[Kind, Sequence[Any]]]


def found(devices: Iterable[Device], states: Collection[str], text: str) -> list[Device]:
    """Those in one of the states (none: in any) in whose name or software a text is, in either case."""
    wanted = text.strip().lower()
    return [
        device
        for device in devices
        if (not states or device.state in states)
        and (not wanted or wanted in device.device.lower() or wanted in device.software.lower())
    ]


def columns(devices: Sequence[Device], last: LastRound | None, versions: Mapping[str, int], zone: tzinfo) -> Columns:
    """A row each. `versions`: the rounds of global models by their hashes."""
    ended = [missed_words(last.of(one.device), one, zone) if last else None for one in devices]
    return {
        "Device": ("text", [one.device for one in devices]),
        "State": ("text", [one.state for one in devices]),
        "Last seen": ("time", [one.last_seen for one in devices]),
        "Last train round": ("words", ended),
        "Rounds": ("whole", [one.rounds for one in devices]),
        "Accuracy (%)": ("percent", [one.accuracy for one in devices]),
        "Threshold": ("number", [one.threshold for one in devices]),
        "Epsilon": ("number", [one.epsilon for one in devices]),
        "Samples": ("whole", [one.samples for one in devices]),
        "Sent (kB)": ("kB", [one.bytes for one in devices]),
        "Retries": ("whole", [one.retries for one in devices]),
        "Model (round)": ("whole", [versions.get(one.model_sha256 or "") for one in devices]),
        "Software": ("text", [one.software for one in devices]),
        "CPU (%)": ("tenths", [one.cpu_percent for one in devices]),
        "Memory (%)": ("tenths", [one.memory_percent for one in devices]),
        "Disk (%)": ("tenths", [one.disk_percent for one in devices]),
        "Disk free (GB)": ("GB", [one.disk_free_bytes for one in devices]),
        "Network up (kB/s)": ("kB", [one.sent_bytes_s for one in devices]),
        "Network down (kB/s)": ("kB", [one.received_bytes_s for one in devices]),
        "Temperature (°C)": ("tenths", [one.temperature_c for one in devices]),
        "Measured": ("time", [one.vitals_at for one in devices]),
    }
