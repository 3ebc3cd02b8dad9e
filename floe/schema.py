"""The shape of one example, which belongs to the federation: every device must have the same.

It travels in the metadata of weight files (`weights.write`), so it is versioned with the model.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from floe.errors import Refused
from floe.messages import parse_json

MAX_SCHEMA_BYTES = 4 * 1024 * 1024


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Number of classes, shape of one example, and for tabular data the name of every feature."""

    shape: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1, max_length=4)]
    classes: Annotated[int, Meta(ge=1, le=1_000_000)]
    features: tuple[Annotated[str, Meta(max_length=256)], ...] = ()

    def to_json(self) -> str:
        """Compact JSON, members in the order of the struct: equal schemas give equal text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Parse and check; raises `Refused("schema", ...)`."""
        try:
            return msgspec.convert(parse_json(text.encode(), MAX_SCHEMA_BYTES), cls)
        except (msgspec.ValidationError, Refused) as error:
            raise Refused("schema", f"unreadable schema: {error}") from None

    def difference(self, federation: Schema) -> str:
        """In words, the first thing in which this device differs from the federation; empty if nothing."""
        if self.features != federation.features and self.features and federation.features:
            return _feature_difference(self.features, federation.features)
        if self.shape != federation.shape:
            return f"examples of shape {self.shape}, the federation has {federation.shape}"
        if self.classes != federation.classes:
            return f"{self.classes} classes, the federation has {federation.classes}"
        if self.features != federation.features:
            return "one of the two names its features and the other does not"
        return ""


def _feature_difference(mine: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    ours, others = set(mine), set(theirs)
    missing = [name for name in theirs if name not in ours]
    extra = [name for name in mine if name not in others]
    if missing or extra:
        parts = [f"{len(mine)} features, the federation has {len(theirs)}"]
        if missing:
            parts.append("missing here: " + _some(missing))
        if extra:
            parts.append("not in the federation: " + _some(extra))
        return "; ".join(parts)
    place = next(i for i, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
    return f"another order: feature {place} is {mine[place]!r}, the federation has {theirs[place]!r}"


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
