"""What the broker tells of itself below `$SYS/`, for the table `broker`. Shown, never believed: a broker says anything.

Only Mosquitto has these topics, and its ACL may keep them: then there is nothing, and nothing is missing.
"""

from __future__ import annotations

import re

ROOT = "$SYS/"
MAX_VALUE = 100  # characters
MAX_BRIDGES = 100
BRIDGES = "$SYS/broker/connection/+/state"
TOPICS = frozenset(
    f"$SYS/broker/{name}"
    for name in (
        *("version", "uptime", "clients/connected", "clients/total", "subscriptions/count", "heap/current"),
        *("messages/received", "messages/sent", "bytes/received", "bytes/sent"),
        *(f"load/{what}/{way}/1min" for what in ("messages", "bytes") for way in ("received", "sent")),
        *("publish/messages/dropped", "retained messages/count"),
    )
)
FILTERS = (*sorted(TOPICS), BRIDGES)
_BRIDGE = re.compile(r"\$SYS/broker/connection/[^/\0]{1,200}/state")


class Figures:
    """The newest values, by topic; `changed` are those that are not written yet."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._bridges = 0
        self.changed: dict[str, str] = {}

    def hear(self, topic: str, payload: bytes) -> None:
        """One message below `$SYS/`; what was not asked for is passed over."""
        bridge = topic not in self._known and _BRIDGE.fullmatch(topic) is not None
        if bridge and self._bridges == MAX_BRIDGES:
            return
        if topic not in TOPICS and topic not in self._known and not bridge:
            return
        self._bridges += bridge
        value = " ".join(payload[: 4 * MAX_VALUE].decode(errors="replace").split())[:MAX_VALUE]
        if self._known.get(topic) != value:
            self._known[topic] = self.changed[topic] = value
