"""A start over a log that is there: which plan it may go on with, how many rounds are to come, what is said."""

from __future__ import annotations

from pathlib import Path

from aggregator.choices import MODELS_HANG_ON, PHASES_HANG_ON, changed, in_words
from aggregator.control import Control
from aggregator.log import Log
from aggregator.phases import MEASURING
from floe.errors import ConfigError
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Rounds

FOLDERS = "other folders ([paths] log, models, state)"

# No device could contribute: each has ended a run by an error.
_FAILED = """
    SELECT count(*) FROM rounds r WHERE (lineage, epoch, task, state) = (:lineage, :epoch, 'train', 'void')
    AND NOT EXISTS (SELECT * FROM updates u WHERE u.outcome = 'accepted'
        AND (u.lineage, u.epoch, u.round, u.task) = (r.lineage, r.epoch, r.round, r.task))
"""


def control_of(log: Log, rounds: Rounds) -> Control:
    """As many rounds more as have failed, as by `floe round start --rounds`: a mended plan gets all it was to have."""
    key = {"lineage": rounds.lineage, "epoch": log.known_epoch(rounds.lineage)}
    (failed,) = log.db.execute(_FAILED, key).fetchone()
    return Control(last=rounds.count + failed, count=rounds.count)


def check_plan(plan: Plan, before: Plan, log: Path) -> None:
    """Raises `ConfigError` for another plan than a log has begun with, where what it has made would not fit."""
    for key in sorted(changed(before, plan) & (PHASES_HANG_ON | MODELS_HANG_ON)):
        raise ConfigError(
            f"[plan] {key} = {getattr(plan, key)!r}, and {log} has begun with {getattr(before, key)!r}: choose "
            f"{FOLDERS}, another working directory, or {key} as it was"
        )


def more_rounds(after: Phase, control: Control, rounds: Rounds) -> int:
    """The least [rounds] count with which another round follows."""
    return after.round + 1 - (control.last - rounds.count)


def nothing_left(phase: Phase, more: int, enough: str, before: Plan, plan: Plan) -> str:
    """What is said where all is done. `enough` says why no more rounds are needed, empty if all are closed; `before` is
    the plan of the last phase, `more` the count with which another round follows.
    """
    keys = changed(before, plan)
    failed = phase.round + 1 - more
    void = f" ({failed} failed, which --rounds does not count)" if failed else ""
    unused = f"; not used: {in_words(keys, plan)} (the last phase had {in_words(keys, before)})" if keys else ""
    go_on = "change what ends them" if enough else f"go on with --rounds {more}"
    done = f"no more rounds are needed: {enough}" if enough else f"all {phase.round} rounds are closed{void}"
    return f"{done}{unused}; {go_on}, or begin a new run in {FOLDERS}"


def keeps_its_own(phase: Phase, before: Plan, plan: Plan) -> str:
    """What is said of a phase that was open, with this plan `before`; empty if `plan` is the same."""
    if not (keys := changed(before, plan)):
        return ""
    return f"{phase.task} {phase.round} keeps {in_words(keys, before)}; {in_words(keys, plan)} counts after it"


def way_out(phase: Phase, more: int) -> str:
    """What to do about a phase that has failed; `more` as above."""
    with_more = f" with --rounds {more}" if phase.task in MEASURING else ""
    mend = "mend the plan (floe.toml or options), the data or what is missing"
    return f"{mend}, and start again{with_more}: it goes on from there"
