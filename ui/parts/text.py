"""Text for the page: what others wrote as it is, numbers with their units, times in the reader's zone. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from floe.terminal import printable, size_words

NOTHING = "-"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^&=\"'/@])")


def plain(text: str) -> str:
    """Text of others for a place where Streamlit reads Markdown: shown as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def moment(text: str | None, zone: tzinfo) -> str:
    """A time of the log, in a zone, to the second: 2026-11-22 10:03:04. What is none is shown as it is: ?garbage"""
    if not text:
        return NOTHING
    try:
        return _time(text).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return f"?{text}"


def ago(text: str | None, now: datetime) -> str:
    """How long a time of the log is ago: 3 min ago. What is no time is shown as it is: ?garbage"""
    if not text:
        return NOTHING
    try:
        return f"{duration((now - _time(text)).total_seconds())} ago"
    except (ValueError, OverflowError):
        return f"?{text}"


def duration(seconds: float | None) -> str:
    """Seconds in words, in the largest unit that fits: 40 s, 3 min, 2.0 h, 5.1 d"""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s" if 0 < seconds < 1 else f"{max(seconds, 0):.0f} s"
    for size, unit in ((86400, "d"), (3600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def share(value: float | None) -> str:
    """A share of one in percent: 85.0 %"""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 4) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def size(value: float | None) -> str:
    return NOTHING if value is None else size_words(value)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
