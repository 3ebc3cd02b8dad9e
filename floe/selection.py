"""Who takes part in a round: a seeded rule that the aggregator and every device compute alike. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection

from floe.messages import Phase

EVERYBODY = "f" * 16


def rank(device: str, phase: Phase, seed: int) -> str:
    """A device's place in the seeded order of a phase: the first 16 hexadecimal digits of a SHA-256."""
    text = f"floe-v1 select\n{seed}\n{phase.lineage}\n{phase.epoch}\n{phase.round}\n{device}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def takes_part(device: str, phase: Phase, seed: int, bar: str, members: Collection[str]) -> bool:
    """Whether a device is selected: it is a member (no members: everybody is) and its rank is not above the bar."""
    if members and device not in members:
        return False
    return bar == EVERYBODY or rank(device, phase, seed) <= bar


def bar_for(devices: Collection[str], phase: Phase, seed: int, fraction: float, members: Collection[str]) -> str:
    """The bar that selects exactly max(C K, 1) of the K devices there (McMahan et al. 2017, Algorithm 1)."""
    if fraction == 1.0:
        return EVERYBODY
    ranks = sorted(rank(device, phase, seed) for device in devices if not members or device in members)
    if not ranks:
        return EVERYBODY
    return ranks[max(math.floor(fraction * len(ranks)), 1) - 1]
