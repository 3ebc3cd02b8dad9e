"""Text from elsewhere, made safe to show. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with everything that could steer a terminal, or hide itself, as an escape: ESC becomes \\\\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
