"""What is shown in a terminal: text from elsewhere made safe, sizes in words. Pure."""

from __future__ import annotations

import math


def printable(text: str) -> str:
    """The text with everything that could steer a terminal, or hide itself, as an escape: ESC becomes \\\\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def large(digits: str) -> str:
    """Digits and blanks in five lines of blocks, to be read from across a room."""
    return "\n".join("  ".join(_LARGE.get(digit, _BLANK)[row] for digit in digits).rstrip() for row in range(5))


def size_words(count: float) -> str:
    """Bytes in decimal units: 1.2 MB"""
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(math.log10(count) // 3), 3)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"


_BLANK = ("  ",) * 5
_LARGE = {
    str(digit): tuple(row.replace(".", "  ").replace("#", "██") for row in rows.split())
    for digit, rows in enumerate(
        (
            "### #.# #.# #.# ###",
            ".#. ##. .#. .#. ###",
            "### ..# ### #.. ###",
            "### ..# ### ..# ###",
            "#.# #.# ### ..# ..#",
            "### #.. ### ..# ###",
            "### #.. ### #.# ###",
            "### ..# ..# ..# ..#",
            "### #.# ### #.# ###",
            "### #.# ### ..# ###",
        )
    )
}
