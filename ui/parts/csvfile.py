"""Rows as a CSV file (RFC 4180): every value as it is, or harmless for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from floe.terminal import printable

FORMULA = ("=", "+", "-", "@")


def write(out: BinaryIO, header: Sequence[str], rows: Iterable[Sequence[object]], *, harmless: bool = False) -> int:
    """Write a header and rows in UTF-8; how many rows. NULL is empty, numbers have all digits, bytes are hexadecimal.

    `harmless`: text that a spreadsheet would take for a formula gets an apostrophe, and what steers a terminal is an
    escape, as in updates.csv (OWASP, CSV Injection).
    """
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    count = 0
    for row in rows:
        writer.writerow([_cell(value, harmless=harmless) for value in row])
        count += 1
    text.detach()
    return count


def _cell(value: object, *, harmless: bool) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if not harmless or not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown
