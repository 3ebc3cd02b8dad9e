"""A CSV, plain or gzipped, as a table of text. Reads one file; pandas is imported only in the functions that use it."""

from __future__ import annotations

import csv
import difflib
import gzip
import warnings
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from edge_client.data.arrays import reading
from edge_client.data.document import MAX_TEXT
from edge_client.data.words import quote, some
from floe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = ",;\t|"
MISSING_WORDS = frozenset(("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "?"))

Cells = npt.NDArray[np.object_]
Table = dict[str, Cells]


def read(path: Path, delimiter: str | None = None) -> Table:
    """Every column by name, in the order of the file: stripped text, None where it is one of `MISSING_WORDS`.

    Without `delimiter` it is the one of `DELIMITERS` that the header has most of. Raises `DataError`: unreadable,
    empty, not UTF-8, a column name twice, empty or too long, a row with more fields than the header.
    """
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise DataError(f"--delimiter {delimiter!r}: one ASCII character, such as ; (a tab is $'\\t' in the shell)")
    with reading(str(path)):
        try:
            header, delimiter = _header(path, delimiter)
            frame = _rows(path, header, delimiter)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, f"byte 0x{error.object[error.start]:02x}") from None
    if frame.empty:
        raise DataError(f"{path}: has a header and no rows")
    cells = frame.to_numpy(dtype=object)
    return {name: _stripped(cells[:, place]) for place, name in enumerate(header)}


def missing(cells: Cells) -> npt.NDArray[np.bool_]:
    """Where a column has no value."""
    where: npt.NDArray[np.bool_] = np.equal(cells, np.array(None, dtype=object)).astype(bool)
    return where


def require(names: Iterable[str], columns: Collection[str], place: str) -> None:
    """Raises `DataError` for the first of `names` that is not a column, with the columns of similar name."""
    known = dict.fromkeys(columns)
    for name in names:
        if name not in known:
            folded = {column.casefold(): column for column in known}
            near = [folded[hit] for hit in difflib.get_close_matches(name.casefold(), folded, 3, 0.5)]
            shown = f"similar: {', '.join(near)}" if near else f"there are: {some(list(known))}"
            raise DataError(f"{place}: no column {quote(name)}; {shown}")


def _rows(path: Path, header: list[str], delimiter: str) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError:
        raise DataError("floe prepare needs pandas, which is absent: pip install floe[edge]") from None
    with _open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                file,
                sep=delimiter,
                names=header,
                header=0,
                index_col=False,
                dtype=object,
                na_filter=False,
                skipinitialspace=True,
            )
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            raise DataError(
                f"{path}: rows and header do not fit, with {delimiter!r} between fields "
                f"(--delimiter chooses another): {str(error).strip()}"
            ) from None


def _stripped(cells: Cells) -> Cells:
    texts = [str(cell).strip() for cell in cells]
    return np.array([None if text in MISSING_WORDS else text for text in texts], dtype=object)


def _header(path: Path, delimiter: str | None) -> tuple[list[str], str]:
    with _open(path) as file:
        first = file.readline()
        if not first.strip():
            raise DataError(f"{path}: is empty; the first line must name the columns")
        if "\0" in first:
            raise _not_utf8(path, "zero bytes, as in UTF-16")
        if delimiter is None:
            delimiter = max(DELIMITERS, key=first.count)
        file.seek(0)
        names = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ")
        try:
            header = [name.strip() for name in next(names)]
        except csv.Error as error:
            raise DataError(f"{path}: the header cannot be read: {error}; is a quotation mark left open?") from None
    _check_header(path, header, delimiter)
    return header, delimiter


def _check_header(path: Path, header: list[str], delimiter: str) -> None:
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice or "" in header:
        problem = f"names {quote(twice[0])} twice" if twice and twice[0] else "has a column without a name"
        raise DataError(f"{path}: the header {problem}; every column needs a name of its own")
    long = [name for name in header if len(name) > MAX_TEXT]
    if long:
        raise DataError(f"{path}: column {quote(long[0])}: a name of over {MAX_TEXT} characters; shorten it")
    if len(header) == 1:
        raise DataError(
            f"{path}: only one column, {quote(header[0])}, with {delimiter!r} between fields; "
            "--delimiter chooses another"
        )


def _not_utf8(path: Path, found: str) -> DataError:
    return DataError(f"{path}: is not UTF-8 text ({found}); save it as UTF-8")


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")
