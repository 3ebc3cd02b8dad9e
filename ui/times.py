"""The log's times, UTC, in words for people: in their time zone, which is named, and how long ago."""

from __future__ import annotations

from datetime import datetime

STEPS = ((60, 1, "s"), (3600, 60, "min"), (2 * 86400, 3600, "h"))


def local(time: str, *, day: bool = True) -> str:
    """A time of the log in the zone of this machine: 2026-11-21 23:46:07 CET; without the day: 23:46:07 CET."""
    moment = datetime.fromisoformat(time).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z" if day else "%H:%M:%S %Z")


def seconds_since(time: str, now: str) -> float:
    """Seconds from one time of the log to another; negative if it is later."""
    return (datetime.fromisoformat(now) - datetime.fromisoformat(time)).total_seconds()


def ago(time: str, now: str) -> str:
    """How long ago a time of the log was: 4 s ago, 3 min ago, 5 h ago, 12 days ago."""
    return f"{span(seconds_since(time, now))} ago"


def span(seconds: float) -> str:
    """A duration in one unit, rounded down: 59 s, 3 min, 47 h, 12 days. Clocks differ: below zero is 0 s."""
    seconds = max(seconds, 0.0)
    for below, unit, name in STEPS:
        if seconds < below:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds // 86400:.0f} days"
