"""One device's history: its part in every round, what its updates said, and its place in the roster."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass

from ui.queries.fleet import Ended, Ending, ending
from ui.queries.rows import Time, Unix, made

UPDATES = """
SELECT epoch, round, task, outcome, reason, detail, merged, weight, samples, base_loss, loss, base_accuracy, accuracy,
    base_roc_auc, roc_auc, threshold, epsilon, bytes, seconds, time
FROM updates WHERE device = :device AND lineage = :lineage ORDER BY id DESC LIMIT :limit
"""

# A name has no character that JSON or instr() would take for something else: [a-z0-9_-].
ASKED = """
SELECT epoch, round, closed_at, instr(expected, :quoted) > 0 FROM rounds
WHERE lineage = :lineage AND task = 'train' AND state != 'open' ORDER BY epoch DESC, round DESC LIMIT :limit
"""

NEWEST = """
SELECT (SELECT max(id) FROM updates WHERE device = :device), max((epoch << 32) + round) FROM rounds
WHERE lineage = :lineage AND task = 'train' AND state != 'open'
"""

ROSTER = "SELECT state, version, signing, suite, hash, rotate, changed_at FROM roster WHERE device = :device"

REQUEST = "SELECT state, time FROM requests WHERE device = :device"

CERTIFICATE = "SELECT issuer, renew_at FROM certificates WHERE device = :device"

KEY = "SELECT key FROM devices WHERE device = :device"

REFUSALS = "SELECT reason, count, first, last FROM refusals WHERE device = :device ORDER BY last DESC"


@dataclass(frozen=True)
class Part:
    """A device's part in a phase: as an update, or without one (`time` is then when the round closed).

    `before` are the global model's figures on the device's test rows, `after` those of its own after training; loss as
    it is, accuracy and ROC-AUC 0..1. `weight`: its share in the model that took it. `seconds`: of training.
    """

    epoch: int
    round: int
    task: str
    ended: Ended
    time: Time | None
    weight: float | None = None
    samples: int | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    roc_auc_before: float | None = None
    roc_auc_after: float | None = None
    threshold: float | None = None
    epsilon: float | None = None
    bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Papers:
    """What the federation knows a device by. `key`: the public key in use (base64url). None: there is no such paper.

    `state`, `version`, `suite`, `hash`, `rotate`, `changed_at`: of its card in the roster. `request`, `requested_at`
    (seconds since 1970): of its request to be let in. `issuer`, `renew_at` (seconds since 1970): of its certificate.
    """

    key: str
    state: str | None
    version: int | None
    suite: str | None
    hash: str | None
    rotate: bool
    changed_at: Time | None
    request: str | None
    requested_at: Unix | None
    issuer: str | None
    renew_at: Unix | None


@dataclass(frozen=True)
class Refusal:
    """How often messages of a device were refused for a reason, and when first and last (UTC)."""

    reason: str
    count: int
    first: Time
    last: Time


def parts(db: sqlite3.Connection, lineage: str, device: str, *, updates: int = 1000, rounds: int = 200) -> list[Part]:
    """A device's parts, newest first: its newest updates, and the newest closed train rounds that have none of it."""
    found = [_part(row) for row in db.execute(UPDATES, {"device": device, "lineage": lineage, "limit": updates})]
    trained = {(part.epoch, part.round) for part in found if part.task == "train"}
    oldest = min(trained, default=(0, 0)) if len(found) == updates else (0, 0)
    asked = {"lineage": lineage, "quoted": json.dumps(device), "limit": rounds}
    for epoch, round, closed_at, was_asked in db.execute(ASKED, asked):
        if (epoch, round) not in trained and (epoch, round) > oldest:
            ended: Ending = "no answer" if was_asked else "not asked"
            found.append(made(Part, (epoch, round, "train", {"how": ended}, closed_at)))
    return sorted(found, key=lambda part: (part.epoch, part.round, part.time or ""), reverse=True)


def newest(db: sqlite3.Connection, lineage: str, device: str) -> tuple[int | None, int | None]:
    """What changes when `parts` does: the number of a device's newest update, and that of the last closed round."""
    update, round = db.execute(NEWEST, {"lineage": lineage, "device": device}).fetchone()
    return update, round


def papers(db: sqlite3.Connection, device: str) -> Papers:
    """What is known of a device's key, card, request and certificate."""
    name = {"device": device}
    state, version, signing, suite, hash, rotate, changed_at = db.execute(ROSTER, name).fetchone() or (None,) * 7
    key = signing or (db.execute(KEY, name).fetchone() or ("",))[0]
    request, requested_at = db.execute(REQUEST, name).fetchone() or (None, None)
    issuer, renew_at = db.execute(CERTIFICATE, name).fetchone() or (None, None)
    return made(
        Papers,
        (key, state, version, suite, hash, bool(rotate), changed_at, request, requested_at, issuer or None, renew_at),
    )


def refusals(db: sqlite3.Connection, device: str) -> tuple[Refusal, ...]:
    """What of a device was refused, the newest first."""
    return tuple(made(Refusal, row) for row in db.execute(REFUSALS, {"device": device}))


def _part(row: sqlite3.Row) -> Part:
    epoch, round, task, outcome, reason, detail, merged, weight, *rest, time = row
    ended = ending(round, outcome, reason, detail, merged)
    return made(Part, (epoch, round, task, asdict(ended), time, weight, *rest))
