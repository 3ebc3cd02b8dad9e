"""What stands in the place of the wire: nothing is sent, bytes are counted as devices would fetch and send them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aggregator.states import State
from floe.identity import Identity
from floe.parcel import Parcel
from floe.topics import Topic


class Silent:
    """Implements `aggregator.conduct.Voice` and `Publishes`.

    `received_bytes` are those of the weights that devices send, `sent_bytes` those of the models that they fetch, once
    for each device; neither has the messages around them.
    """

    def __init__(self, federation: str, identity: Identity) -> None:
        self.federation = federation
        self.identity = identity
        self.received_bytes = 0
        self.sent_bytes = 0

    def send(self, topic: Topic, kind: type[Any], *, retain: bool = False, **fields: Any) -> None:
        """Nobody listens."""

    def publish(self, parcel: Parcel, devices: Collection[str] | None = None) -> None:
        """Nobody listens."""


class Clock:
    """Seconds that pass only when everybody waits: no deadline comes while devices are simulated one by one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait_until(self, due: float) -> None:
        """Go on to a moment, if it is still to come."""
        self.now = max(self.now, due)


def stands_still(before: State, after: State) -> bool:
    """Whether nothing has come of waiting."""
    return (before.stage, before.phase) == (after.stage, after.phase)
