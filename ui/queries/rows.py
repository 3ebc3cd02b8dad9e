"""Rows of the log as dataclasses: what no aggregator would write there is named, and goes no further.

A disk, a careless hand or somebody with an editor for SQLite can put anything into any column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

T = TypeVar("T")

_DAYS = r"(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])"
_LEAP_DAY = r"(19(72|76|80|84|88|92|96)|20([02468][048]|[13579][26]))-02-29"
_HOUR = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
# A time of the log: UTC, ISO 8601, in the years 1000 to 2999, so that it is one in every zone.
Time = Annotated[str, msgspec.Meta(pattern=rf"\A([12][0-9][0-9][0-9]-({_DAYS})|{_LEAP_DAY})T{_HOUR}(Z|\+00:00)\Z")]
# Seconds since 1970 of such a time.
Unix = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]

_REGEX = re.compile(r"Expected `str` matching regex '.*'")


class Spoilt(Exception):
    """A value of the log is none that Floe writes there; the text names the row and what is wrong."""


def made(kind: type[T], row: Iterable[Any]) -> T:
    """A dataclass of the columns of a row, in the order of its fields. Raises `Spoilt` for a value of another type."""
    of: Any = kind
    values = dict(zip(_names(of), row, strict=False))
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        whose = next((str(one) for one in values.values()), "")
        raise Spoilt(f"{kind.__name__.lower()} {whose[:80]!r}: {_REGEX.sub('Expected a time', str(error))}") from None


def decoded(text: object, kind: type[T], what: str) -> T:
    """JSON of a column. Raises `Spoilt`."""
    try:
        return msgspec.json.decode(str(text), type=kind)
    except msgspec.MsgspecError as error:
        raise Spoilt(f"{what}: {error}") from None


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
