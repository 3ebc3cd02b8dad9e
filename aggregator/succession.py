"""An aggregator's change of keys: made when an operator asks, taken when a head of the roster names them.

Killed anywhere between, the next start does the rest.
"""

from __future__ import annotations

from pathlib import Path

from aggregator.log import Log
from aggregator.registry import sign_anew
from floe.documents import Aggregator
from floe.errors import Refused
from floe.hpke import sealing_text
from floe.own_keys import OwnKeys, has_next, load_keys, load_next, take_next
from floe.roster import Anchor, read_head


def follows(named: Aggregator, state: Path) -> bool:
    """Whether a head names for an aggregator the keys that it has made to follow. Raises `KeyFileError`."""
    if not has_next(state, named.lineage):
        return False
    keys = load_next(state, named.lineage)
    return (named.signing, named.sealing) == (keys.identity.key, sealing_text(keys.sealing.public_key()))


def keys_by_roster(log: Log, anchor: Anchor, lineage: str, state: Path) -> OwnKeys:
    """Our keys: those that follow take the place of those in use once the roster names them, and sign our models.

    Raises `KeyFileError`, `StoreError`.
    """
    keys = load_keys(state, lineage)
    row = log.db.execute("SELECT head FROM heads WHERE lineage = ?", [lineage]).fetchone()
    if row is None or not has_next(state, lineage):
        return keys
    try:
        named = read_head(row[0], anchor).aggregator(lineage)
    except Refused:  # damaged: `Members` says so
        return keys
    if follows(named, state):
        following = load_next(state, lineage)
        sign_anew(log, lineage, keys.identity, following.identity)
        take_next(state, lineage)
        log.event("info", "keys", "other keys are in use, as the roster says")
        return following
    return keys
