"""A CSV, plain or gzipped, as a table of text. Reads one file; pandas is imported only in the functions that use it."""

from __future__ import annotations

import csv
import difflib
import gzip
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from edge_client.data.arrays import reading
from floe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = ",;\t|"
MISSING_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "?")


def read(path: Path, delimiter: str | None = None) -> pd.DataFrame:
    """Every cell as stripped text, missing ones (`MISSING_WORDS`) as NaN; rows numbered from 0.

    Without `delimiter` it is the one of `DELIMITERS` that the header has most of. Raises `DataError`: unreadable,
    empty, not UTF-8, a column name twice or empty, a row with more fields than the header.
    """
    try:
        import pandas as pd
    except ImportError:
        raise DataError("floe prepare needs pandas, which is absent: pip install floe[edge]") from None
    with reading(str(path)):
        header, delimiter = _header(path, delimiter)
        with _open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                frame = pd.read_csv(
                    file,
                    sep=delimiter,
                    names=header,
                    header=0,
                    index_col=False,
                    dtype=str,
                    keep_default_na=False,
                    na_values=list(MISSING_WORDS),
                    skipinitialspace=True,
                )
            except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
                raise DataError(
                    f"{path}: rows and header do not fit, with {delimiter!r} between fields "
                    f"(--delimiter chooses another): {str(error).strip()}"
                ) from None
    if frame.empty:
        raise DataError(f"{path}: has a header and no rows")
    stripped = frame.apply(lambda column: column.str.strip())
    return cast("pd.DataFrame", stripped.mask(stripped == ""))


def require(names: Iterable[str], columns: Iterable[str], place: str) -> None:
    """Raises `DataError` for the first of `names` that is not a column, with the columns of similar name."""
    known = list(columns)
    for name in names:
        if name not in known:
            folded = {column.casefold(): column for column in known}
            near = [folded[hit] for hit in difflib.get_close_matches(name.casefold(), folded, 3, 0.5)]
            shown = f"similar: {', '.join(near)}" if near else f"there are: {_some(known)}"
            raise DataError(f"{place}: no column {name!r}; {shown}")


def _header(path: Path, delimiter: str | None) -> tuple[list[str], str]:
    with _open(path) as file:
        first = file.readline()
        if not first.strip():
            raise DataError(f"{path}: is empty; the first line must name the columns")
        if delimiter is None:
            delimiter = max(DELIMITERS, key=first.count)
        file.seek(0)
        header = [name.strip() for name in next(csv.reader(file, delimiter=delimiter, skipinitialspace=True))]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        problem = f"names {twice[0]!r} twice" if twice and twice[0] else "has a column without a name"
        raise DataError(f"{path}: the header {problem}; every column needs a name of its own")
    if len(header) == 1:
        raise DataError(
            f"{path}: only one column, {header[0]!r}, with {delimiter!r} between fields; --delimiter chooses another"
        )
    return header, delimiter


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
