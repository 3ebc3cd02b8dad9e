"""Where the rounds stand: the open phase, what it waits for, and what each of its devices is doing."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from floe import privacy
from ui.queries.rows import Time, decoded, made

STANDING = "SELECT * FROM standing WHERE lineage = :lineage"

NEWEST_ROUND = """
SELECT round, task, epoch, state, expected, opened_at, closed_at, seconds FROM rounds
WHERE lineage = :lineage ORDER BY epoch DESC, round DESC, opened_at DESC LIMIT 1
"""

ENDED = """
SELECT device, outcome FROM updates
WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = :task
"""

DOING = "SELECT device, state, round, task FROM devices"

UPLOADS = "SELECT device, round, task, received, chunks, since FROM uploads ORDER BY since, device"

# Of the newest round that has spent some: a void one after it has not.
OF_DEVICES = """
SELECT 'device', epsilon, delta, accountant FROM rounds
WHERE lineage = :lineage AND task = 'train' AND epsilon IS NOT NULL ORDER BY epoch DESC, round DESC LIMIT 1
"""

OF_EXAMPLES = """
SELECT 'example', epsilon, delta, accountant FROM devices WHERE epsilon IS NOT NULL ORDER BY epsilon DESC LIMIT 1
"""

STATES = "SELECT state, count(*) AS devices FROM devices GROUP BY state"

Doing = Literal["done", "refused", "offline", "uploading", "late", "training", "waiting"]
HERE = frozenset({"online", "training", "idle"})


@dataclass(frozen=True)
class Standing:
    """The aggregator's own word on where the rounds stand; see table `standing` in floe/migrations.py.

    `stage`: waiting | open | closing | finished. `held`: '' | paused | stopped. `last`: last round to train. `needed`:
    updates still missing when open, devices needed when waiting. `plan`: of the next phase, JSON. Times are UTC, as in
    the log: it is so since `changed_at`, and was still so at `seen_at`, which is written every 10 s.
    """

    epoch: int
    round: int
    task: str
    stage: str
    held: str
    last: int
    online: int
    needed: int
    quorum: int
    plan: str
    deadline_at: Time | None
    changed_at: Time
    seen_at: Time


@dataclass(frozen=True)
class Round:
    """A phase as it was opened. `expected`: the devices that it was opened for, sorted. `seconds`: of being open."""

    epoch: int
    round: int
    task: str
    state: str
    expected: tuple[str, ...]
    opened_at: Time
    closed_at: Time | None
    seconds: float | None

    def is_of(self, standing: Standing) -> bool:
        """Whether the aggregator's word speaks of this phase."""
        return (self.epoch, self.round, self.task) == (standing.epoch, standing.round, standing.task)


@dataclass(frozen=True)
class Upload:
    """A transfer on its way to the aggregator: `received` of `chunks` chunks."""

    device: str
    round: int
    task: str
    received: int
    chunks: int
    since: Time


@dataclass(frozen=True)
class Privacy:
    """What has been spent in all rounds so far, of one `unit`: a device's, or an example's where most was spent."""

    unit: str
    epsilon: float
    delta: float
    accountant: str

    def words(self) -> str:
        """Epsilon, rounded up, with its unit."""
        return privacy.words(self.epsilon, self.unit, self.delta, self.accountant)


@dataclass(frozen=True)
class Now:
    """All of it at one moment. `round` is the newest phase that was opened, None before the first; `standing` may be a
    second behind it, or wait for the next. `doing`: what each expected device does, by `doing_of`. `states`: all
    devices of the log, by state. `privacy`: None where no plan asked for it.
    """

    standing: Standing | None
    round: Round | None
    uploads: tuple[Upload, ...]
    doing: dict[str, Doing]
    states: dict[str, int]
    privacy: Privacy | None = None


def standing(db: sqlite3.Connection, lineage: str) -> Standing | None:
    """The aggregator's own word on where the rounds of a lineage stand; None: it has said none yet."""
    row = db.execute(STANDING, {"lineage": lineage}).fetchone()
    return made(Standing, (row[name] for name in Standing.__dataclass_fields__)) if row else None


def states(db: sqlite3.Connection) -> dict[str, int]:
    """How many devices of the log are in each state."""
    return {str(state): count for state, count in db.execute(STATES)}


def now(db: sqlite3.Connection, lineage: str, moment: str) -> Now:
    """Where the rounds of a lineage stand. `moment`: the time now, as `floe.store.now` writes it."""
    stands = standing(db, lineage)
    open_ = _round(db, lineage)
    uploads = tuple(made(Upload, found) for found in db.execute(UPLOADS))
    over = stands is not None and open_ is not None and open_.is_of(stands) and _is_over(stands, moment)
    doing = _doing(db, lineage, open_, uploads, over) if open_ else {}
    return Now(stands, open_, uploads, doing, states(db), spent(db, lineage))


def spent(db: sqlite3.Connection, lineage: str) -> Privacy | None:
    """What has been spent of privacy: of devices, if any round had noise for them; else of examples."""
    for query in (OF_DEVICES, OF_EXAMPLES):
        row = db.execute(query, {"lineage": lineage}).fetchone()
        if row is not None:
            return made(Privacy, row)
    return None


def doing_of(
    phase: tuple[int, str], state: str, at: tuple[int | None, str | None], outcomes: set[str],
    upload: tuple[int, str] | None, *, over: bool,
) -> Doing:  # fmt: skip
    """What an expected device does about a phase; the first that holds:

    - `done`: its update was accepted.
    - `refused`: its update was rejected.
    - `offline`: its state is not online, training or idle (unknown: it has not said since the aggregator's start).
    - `uploading`: its transfer for this phase is on the way.
    - `late`: it has none of these when the deadline is over, or its update came after the phase closed, or it still
      trains or sends for another phase.
    - `training`: it says that it trains, for this phase.
    - `waiting`: it is there, and has not begun.

    `phase`, `at`, `upload`: round and task asked for, of its status, of its transfer. `over`: the deadline is.
    """
    if "accepted" in outcomes:
        return "done"
    if "rejected" in outcomes:
        return "refused"
    if state not in HERE:
        return "offline"
    if upload == phase:
        return "uploading"
    if over or "late" in outcomes or upload is not None or (state == "training" and at != phase):
        return "late"
    return "training" if state == "training" else "waiting"


def _round(db: sqlite3.Connection, lineage: str) -> Round | None:
    row = db.execute(NEWEST_ROUND, {"lineage": lineage}).fetchone()
    if row is None:
        return None
    expected = sorted(decoded(row["expected"], list[str], "rounds.expected"))
    return made(Round, (expected if name == "expected" else row[name] for name in Round.__dataclass_fields__))


def _is_over(standing: Standing, moment: str) -> bool:
    return standing.deadline_at is not None and standing.deadline_at < moment


def _doing(
    db: sqlite3.Connection, lineage: str, open_: Round, uploads: tuple[Upload, ...], over: bool
) -> dict[str, Doing]:
    phase = (open_.round, open_.task)
    outcomes: dict[str, set[str]] = {}
    about = {"lineage": lineage, "epoch": open_.epoch, "round": open_.round, "task": open_.task}
    for row in db.execute(ENDED, about):
        outcomes.setdefault(row["device"], set()).add(row["outcome"])
    states = {row["device"]: (row["state"], (row["round"], row["task"])) for row in db.execute(DOING)}
    sending = {upload.device: (upload.round, upload.task) for upload in uploads}
    return {
        device: doing_of(
            phase, *states.get(device, ("unknown", (None, None))), outcomes.get(device, set()), sending.get(device),
            over=over,
        )
        for device in open_.expected
    }  # fmt: skip
