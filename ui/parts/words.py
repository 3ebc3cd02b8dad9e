"""Words with symbols, for what is told by neither alone: levels, what devices do, states of links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ui.queries.standing import Doing, Upload

LEVELS = {"info": "· info", "warning": "▲ warning", "error": "✖ error"}
DOING: dict[Doing, str] = {
    "training": "▶ training",
    "uploading": "↑ uploading",
    "done": "✔ done",
    "waiting": "○ waiting",
    "late": "▲ late",
    "refused": "✖ refused",
    "offline": "✖ offline",
}
STATES = ("training", "online", "idle", "offline", "unknown", "unverified", "rejected", "revoked")
NAMES = 12  # of a group that are told


def level(word: str) -> str:
    """A level with its symbol."""
    return LEVELS.get(word, word)


def groups(doing: Mapping[str, Doing], uploads: Sequence[Upload]) -> dict[str, list[str | int]]:
    """What the devices of a round do, as columns: a row for each thing to do, also those that nobody does."""
    names: dict[Doing, list[str]] = {what: [] for what in DOING}
    for device, what in doing.items():
        names[what].append(device)
    parts = {upload.device: upload.received / max(upload.chunks, 1) for upload in uploads}
    return {
        "doing": list(DOING.values()),
        "devices": [len(names[what]) for what in DOING],
        "names": [_first(names[what], parts if what == "uploading" else {}) for what in DOING],
    }


def in_order(states: Mapping[str, int]) -> dict[str, int]:
    """Devices by state in an order that stays; states that no device has are left out."""
    known = {state: states[state] for state in STATES if states.get(state)}
    return known | {state: count for state, count in sorted(states.items()) if state not in STATES}


def _first(names: Sequence[str], parts: Mapping[str, float]) -> str:
    told = [f"{name} {parts[name]:.0%}" if name in parts else name for name in names[:NAMES]]
    return ", ".join(told) + (f" and {len(names) - NAMES:,} more" if len(names) > NAMES else "")
