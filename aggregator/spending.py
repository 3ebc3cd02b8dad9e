"""What devices say that they have spent of an example's privacy, against what they said before. Writes `devices`."""

from __future__ import annotations

from typing import Any

import msgspec

from aggregator import statements
from floe.privacy import rounded_up, words
from floe.report import Privacy
from floe.sqlite import Database

ROUNDING = 1e-9  # what two machines may differ by, relative


def note(db: Database, update: dict[str, Any], now: Privacy) -> str:
    """Keep what an accepted update says, in the transaction that adds it; why it cannot be so, in words, or empty.

    One that a later update of its device has overtaken is compared with that, and changes nothing of the device.
    """
    if later := db.execute(statements.ACCOUNT_AFTER, update).fetchone():
        return _words(update["device"], now, Privacy(*later))
    db.execute(statements.PRIVACY, msgspec.structs.asdict(now) | {"device": update["device"]})
    before = db.execute(statements.ACCOUNT, update).fetchone()
    return _words(update["device"], Privacy(*before), now) if before else ""


def _fell(before: Privacy, now: Privacy) -> bool:
    """Whether an account is smaller than an earlier one: none is, whatever the plans, unless delta has grown."""
    comparable = now.accountant == before.accountant and now.delta <= before.delta
    return comparable and now.epsilon < before.epsilon * (1 - ROUNDING)


def _words(device: str, before: Privacy, now: Privacy) -> str:
    if not _fell(before, now):
        return ""
    told = [words(said.epsilon, "example", said.delta, said.accountant) for said in (now, before)]
    return (
        f"{device}: says {told[0]} in all, and said {told[1]} before: its privacy ledger was lost, or an older one is "
        f"in its place. What had left it counts all the same: add {rounded_up(before.epsilon)} to what it says from "
        "now on, and delta to delta"
    )
