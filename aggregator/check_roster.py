"""The roster's part of `floe check`: the head leads to the root and counts the cards that are in the log. Reads."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from floe import merkle
from floe.anchor import read_anchor
from floe.errors import Refused
from floe.findings import Findings
from floe.roster import Anchor, hash_of_card, read_card, read_head
from floe.settings import Config

WAY_OUT = "restore the log from a backup; what is newer the aggregator fetches from the broker"


def check_roster(config: Config, connection: sqlite3.Connection, path: Path, lineage: str, found: Findings) -> None:
    """The tables `heads` and `roster` against each other and against federation.pub, where there is enrolment."""
    anchor = read_anchor(config.path(config.security.federation))
    row = connection.execute("SELECT head FROM heads WHERE lineage = ?", [lineage]).fetchone()
    if anchor is None or row is None:
        return
    found.count("roster")
    cards = {}
    for device, state, hash_, text in connection.execute("SELECT device, state, hash, card FROM roster"):
        found.count("card")
        cards[device] = hash_of_card(text)
        if fault := _fault_of_card(text, anchor, device, state, hash_):
            found.damage(path, f"the card of {device!r}: {fault}", WAY_OUT)
    try:
        roster = read_head(row[0], anchor)
    except Refused as refusal:
        found.damage(path, f"the head of the roster: {refusal}", WAY_OUT)
        return
    if merkle.root_of(cards) != roster.head.tree:
        found.damage(path, f"the cards are not those that version {roster.version} of the roster counts", WAY_OUT)


def _fault_of_card(text: str, anchor: Anchor, device: str, state: str, hash_: str) -> str:
    try:
        card = read_card(text, anchor)
    except Refused as refusal:
        return str(refusal)
    if (card.member, card.state, hash_of_card(text).hex()) != (device, state, hash_):
        return "not what its row says"
    return ""
