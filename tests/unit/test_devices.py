"""`floe devices`: a request and the card of the same name are both shown."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

from floe.devices import _rows
from floe.documents import Keys, Member
from floe.managing import Managing

KEYS = Keys(signing="s", sealing="x", suites=())


@dataclasses.dataclass
class Held:
    """What an aggregator shows of one name."""

    rows: tuple[Member, ...]

    def show(self, name: str) -> Any:
        assert name == "ann"
        return SimpleNamespace(rows=self.rows)


def test_beside_a_request_the_card_is_shown() -> None:
    request, card = (Member(name="ann", state=state, keys=KEYS, time=0) for state in ("pending", "approved"))
    held = cast(Managing, Held((request, card)))
    assert tuple(_rows(held, request)) == (card, request)
    assert tuple(_rows(held, card)) == (card,)
