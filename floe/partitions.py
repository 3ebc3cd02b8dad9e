"""The ways to divide a data set over devices, for every command that offers them. Pure."""

from __future__ import annotations

from typing import Literal

from floe.errors import DataError

How = Literal["iid", "dirichlet", "shards", "quantity", "column"]
ALPHA = 0.5
WITH_ALPHA = ("dirichlet", "quantity")
ALPHA_HELP = f"{', '.join(WITH_ALPHA)}: smaller is more uneven  [default: {ALPHA}]"
BY_HELP = "column: the column whose values are kept together; above 32 different numbers, ranges of them"


def check(how: str, alpha: float | None, by: str | None) -> None:
    """Raises `DataError` when a choice is given that the partition does not use, or one is missing that it needs."""
    if alpha is not None and how not in WITH_ALPHA:
        raise DataError(f"--alpha {alpha:g}: {how} does not use it, {' and '.join(WITH_ALPHA)} do; leave it out")
    if by and how != "column":
        raise DataError(f"--by {by}: {how} does not use it; --partition column does")
    if not by and how == "column":
        raise DataError("--partition column: by which? --by COLUMN")
