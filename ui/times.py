"""The log's times, UTC, for a terminal: in the time zone of this machine, which is named."""

from __future__ import annotations

from datetime import datetime

from ui.parts.text import ago


def local(time: str, *, day: bool = True) -> str:
    """A time of the log here: 2026-11-21 23:46:07 CET; without the day: 23:46:07 CET; ?garbage for none."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z" if day else "%H:%M:%S %Z")
    except (ValueError, OverflowError):
        return f"?{time}"


def seconds_since(time: str, now: str) -> float:
    """Seconds from one time of the log to another; negative if it is later."""
    return (datetime.fromisoformat(now) - datetime.fromisoformat(time)).total_seconds()


def how_long_ago(time: str, now: str) -> str:
    """From one time of the log to another, in words: 3 min ago"""
    return ago(time, datetime.fromisoformat(now))
