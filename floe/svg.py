"""The pieces of Floe's figures: one grey that can be read on white and on black, and told apart by form. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

INK = "#7a7a7a"


def document(width: float, height: float, parts: Iterable[str]) -> str:
    """The text of an SVG file. Whoever shows it may scale it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" '
        f'font-size="12" fill="{INK}" stroke="none">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """Words at a place; `anchor` says which of their points is there: start, middle, end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
