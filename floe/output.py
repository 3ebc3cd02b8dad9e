"""stdout: what cannot be written there is one error, and a reader that has enough ends us quietly. Touches fd 1."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from click.exceptions import Exit

from floe.errors import OutputError

STDOUT = 1
BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell shows for a program that `head` ended


class _Stdout(io.FileIO):
    """Raises `OutputError`, or `Exit` for a pipe that nobody reads: neither can be taken for a fault of a file's."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _point_to(os.O_WRONLY)  # what is still buffered would fail once more while we end
            if isinstance(error, BrokenPipeError):
                raise Exit(BROKEN_PIPE) from None
            raise OutputError(f"cannot write to stdout: {error.strerror}") from None


def guard_stdout() -> None:
    """Make `sys.stdout` one that ends the process as above. Names that are not text are shown with escapes."""
    if sys.stdout is None:  # closed by who started us: keep the number, or a database would get it
        _point_to(os.O_RDONLY)
    raw = _Stdout(STDOUT, "wb", closefd=False)
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=raw.isatty()
    )


def _point_to(flags: int) -> None:
    nowhere = os.open(os.devnull, flags)
    if nowhere != STDOUT:
        os.dup2(nowhere, STDOUT)
        os.close(nowhere)
