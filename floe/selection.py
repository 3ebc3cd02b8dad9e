"""Who takes part in a round: a seeded rule that the aggregator and every device compute alike. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence

from floe.messages import Phase

MAX_DRAWS = 10_000


def takes_part(device: str, phase: Phase, seed: int, draw: int, fraction: float, members: Sequence[str]) -> bool:
    """Whether a device is selected.

    A list of members comes first; of those the fraction C is drawn (McMahan et al. 2017, Algorithm 1): the first 8
    bytes of SHA-256 over the text below, as a big-endian number, are less than C * 2^64.
    """
    if members and device not in members:
        return False
    if fraction == 1.0:
        return True
    text = f"floe-v1 select\n{seed}\n{phase.lineage}\n{phase.epoch}\n{phase.round}\n{draw}\n{device}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < fraction * 2**64


def draw_for(devices: Collection[str], phase: Phase, seed: int, fraction: float, members: Sequence[str]) -> int:
    """The first draw that selects exactly max(C * K, 1) of the K devices that may take part, as Algorithm 1 does."""
    eligible = [device for device in devices if not members or device in members]
    wanted = max(math.floor(fraction * len(eligible)), 1)
    if fraction == 1.0 or not eligible:
        return 0
    for draw in range(MAX_DRAWS):
        if sum(takes_part(d, phase, seed, draw, fraction, members) for d in eligible) == wanted:
            return draw
    return 0
