"""What the aggregator finds damaged when it starts: told, set aside, never overwritten, and gone on without."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from floe.errors import StoreError
from floe.files import set_aside

MAX_EPOCH = 2**31


def kept_epoch(path: Path, known: int | None, tell: Callable[[str], None]) -> int:
    """The epoch that the file `epoch` remembers, 0 without one. `known` is the log's. Raises `StoreError`."""
    if not os.path.lexists(path):
        return 0
    try:
        kept = int(path.read_text())
        if not 1 <= kept < MAX_EPOCH:
            raise ValueError(kept)
    except (OSError, ValueError):
        if known is None:
            raise StoreError(
                f"{path}: not the number of an epoch, and the log does not know it: restore one of the two; or write "
                "into it the highest epoch that models/global knows (<epoch>-<round>.safetensors; 1 without such names)"
            ) from None
        tell(f"{path}: not the number of an epoch; set aside as {set_aside(path).name}, the log knows it")
        return known
    return kept
