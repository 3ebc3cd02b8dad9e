"""Somebody with access to the broker and without secret.key: takes no name, holds no round, stops nobody."""

from __future__ import annotations

from helpers.federation import Federation
from helpers.peer import Peer

REFUSED = "SELECT * FROM events WHERE kind = 'refused' AND device = ? AND reason = 'unknown-key'"


def test_a_strangers_retained_status_holds_no_round_and_its_name_is_still_free(federation: Federation) -> None:
    """Were `ghost` expected, a round without a quorum would wait for it for ever; were its key pinned, `b` could not
    have its name."""
    federation.configure({"rounds": {"count": 1, "devices": 2}})
    with Peer(federation, "ghost", stranger=True), Peer(federation, "b", stranger=True):
        federation.aggregator()
        for name in ("ghost", "b"):
            federation.until(REFUSED, name)
        federation.client("a")
        federation.client("b")
        federation.finish()
    accepted = federation.query("SELECT DISTINCT device FROM updates WHERE outcome = 'accepted' AND task = 'train'")
    assert sorted(row["device"] for row in accepted) == ["a", "b"]
    assert federation.query("SELECT * FROM devices WHERE device = 'ghost'") == []
