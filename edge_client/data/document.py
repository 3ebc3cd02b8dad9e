"""schema.json: what the columns of a feature folder mean and how they were made. Reads and writes that one file.

It belongs to the federation: `floe prepare --schema` repeats on another device exactly what is written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_client.data.arrays import reading
from floe.errors import DataError, Refused
from floe.messages import parse_json
from floe.schema import MAX_SCHEMA_BYTES, Schema

FILE = "schema.json"
MISSING, OTHER = "missing", "other"

MAX_TEXT = 200
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Origin = dict[str, str | int | float]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One column of the CSV and what becomes of it.

    numeric: the value (`median` where it is missing; with `log`, sign(x)*log1p(|x|)), then, with `missing`, an
    indicator. categorical: one 0/1 feature for each of `categories`, then `other`, then, with `missing`, `missing`.
    """

    name: Text
    kind: Literal["numeric", "categorical"]
    median: float = 0.0
    log: bool = False
    categories: tuple[Text, ...] = ()
    missing: bool = False

    def features(self) -> tuple[str, ...]:
        """The names of the features this column becomes, in order."""
        gap = (f"{self.name}={MISSING}",) if self.missing else ()
        if self.kind == "numeric":
            return (self.name, *gap)
        return (*(f"{self.name}={category}" for category in self.categories), f"{self.name}={OTHER}", *gap)


class Dropped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column that was left out, and why."""

    name: str
    reason: str


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The label column: `normal` becomes 0 and all else 1; without it, class i is `classes[i]`."""

    column: str
    normal: str | None = None
    classes: tuple[Text, ...] = ()


class Document(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag_field="version",
    tag=1,
):
    """The whole file. `schema` is what the federation compares; `origin` says what the folder was made from."""

    schema: Schema
    label: Label | None = None
    columns: tuple[Column, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    origin: Origin = {}

    def to_json(self) -> bytes:
        """Indented for people; equal documents give equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read(path: Path) -> Document:
    """Parse and check a schema.json. Raises `DataError` naming the file and the place in it."""
    with reading(str(path)), path.open("rb") as file:
        payload = file.read(4 * MAX_SCHEMA_BYTES + 1)
    try:
        found = msgspec.convert(parse_json(payload, 4 * MAX_SCHEMA_BYTES), Document)
    except (Refused, msgspec.ValidationError) as error:
        raise DataError(f"{path}: not a Floe schema: {error}") from None
    derived = tuple(name for column in found.columns for name in column.features())
    if found.columns and derived != found.schema.features:
        raise DataError(f"{path}: the feature names do not follow from the columns; make it anew with `floe prepare`")
    return found
