"""Foreign text inside messages: printable, and short, however long it is in the file. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MAX_SHOWN = 60


def shorten(text: str) -> str:
    """At most `MAX_SHOWN` characters of `text`, those that do not print as question marks."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: MAX_SHOWN + 1])
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 3]}..."


def quote(text: str) -> str:
    """`shorten`, in quotation marks."""
    return repr(shorten(text))


def some(texts: Sequence[str], most: int = 8) -> str:
    """The first of them, shortened, and how many more there are."""
    shown = ", ".join(shorten(text) for text in texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"
