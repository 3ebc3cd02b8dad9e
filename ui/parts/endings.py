"""How a device's part in a round ended, in words: a device's own are among them, for places that show text as it is."""

from __future__ import annotations

from datetime import tzinfo

from ui.parts.text import moment
from ui.queries.fleet import GONE, Device, Ended


def ended_words(ended: Ended) -> str:
    """What an update's row tells: rejected (weights): tensor 'a' is missing"""
    if ended.how == "merged later":
        return f"late, merged in round {ended.merged}" if ended.merged is not None else "accepted, in no model"
    reason = f" ({ended.reason})" if ended.reason else ""
    return f"{ended.how}{reason}" + (f": {ended.detail}" if ended.detail else "")


def missed_words(ended: Ended, device: Device, zone: tzinfo) -> str:
    """The same for the last round, of which a device is known to be gone or still busy: no answer; offline since ..."""
    if ended.how != "no answer":
        return ended_words(ended)
    if device.state in GONE:
        return f"no answer; {device.state} since {moment(device.last_seen, zone)}"
    doing = f", {device.task} {device.round}" if device.task is not None else ""
    return f"no answer in time; now {device.state}{doing}"
