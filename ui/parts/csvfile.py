"""Rows as a CSV file (RFC 4180): every value as it is, or harmless for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from floe.terminal import printable

FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Written:
    """What is in a file: so many rows; `whole`: all that there were."""

    rows: int
    whole: bool


def write(
    out: BinaryIO, header: Sequence[str], rows: Iterable[Sequence[object]], *, harmless: bool = False, most: int = 0
) -> Written:
    """Write a header and rows in UTF-8. NULL is empty, numbers have all digits, bytes are hexadecimal.

    `most`: no row is begun beyond so many bytes; 0: all are written.
    `harmless`: text that a spreadsheet would take for a formula gets an apostrophe, and what steers a terminal is an
    escape, as in updates.csv (OWASP, CSV Injection).
    """
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(header)
    count, whole = 0, True
    for row in rows:
        if most and out.tell() >= most:
            whole = False
            break
        writer.writerow([_cell(value, harmless=harmless) for value in row])
        count += 1
    text.detach()
    return Written(count, whole)


def _cell(value: object, *, harmless: bool) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if not harmless or not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown
