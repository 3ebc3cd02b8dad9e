"""How many messages of one device are looked at: what costs work is limited before its signature is verified.

A token bucket for each device (the generic cell rate algorithm, ITU-T I.371, keeps one number for each). A topic's name
is all that is known before the signature, and without the broker's ACL anybody may write on it: so a flood under
another's name shuts that device out, but not for longer than the flood lasts. Pure: the clock is passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """So many messages at once, and so many a second for ever."""

    burst: float
    per_s: float


# A device of quick rounds, a model that trains in milliseconds, says four messages a round: some fifty rounds a second.
DEVICE = Rate(2000, 200)
# All names that have no key yet share this: a fleet of ten thousand may come at once.
STRANGERS = Rate(10_000, 20)
MOST_DEVICES = 10_000


class Limits:
    """Who is heard. Memory is bounded: of more than `most` devices those that were silent longest are forgotten."""

    def __init__(self, device: Rate = DEVICE, strangers: Rate = STRANGERS, most: int = MOST_DEVICES) -> None:
        self._device = device
        self._strangers = strangers
        self._most = most
        self._paid: OrderedDict[str, float] = OrderedDict()  # until when the messages that were admitted are paid for
        self._strangers_paid = 0.0

    def admits(self, device: str | None, now: float) -> bool:
        """Whether one more message of a device is looked at; None: of a name that no key is known for."""
        if device is None:
            paid = self._after(self._strangers_paid, self._strangers, now)
            self._strangers_paid = paid or self._strangers_paid
            return paid is not None
        paid = self._after(self._paid.get(device, now), self._device, now)
        if paid is None:
            return False
        self._paid[device] = paid
        self._paid.move_to_end(device)
        if len(self._paid) > self._most:
            self._paid.popitem(last=False)
        return True

    @staticmethod
    def _after(paid: float, rate: Rate, now: float) -> float | None:
        """Until when it is paid with one message more; None if that is too far ahead."""
        paid = max(paid, now) + 1 / rate.per_s
        return paid if (paid - now) * rate.per_s <= rate.burst + 1e-6 else None
