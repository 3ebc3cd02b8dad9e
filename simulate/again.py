"""A start over a log that is there: which plan it may go on with, how many rounds are to come, what is said."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from aggregator.choices import MODELS_HANG_ON, PHASES_HANG_ON, changed, in_words
from aggregator.conduct import over
from aggregator.control import Control
from aggregator.log import Log
from aggregator.phases import MEASURING
from floe.errors import ConfigError
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Rounds

FOLDERS = "other folders ([paths] log, models, state)"
_MEND = "mend the plan (floe.toml or options), the data or what is missing"

# What is open still makes its model by its own plan; what is void has made none.
_BEGUN_WITH = """
    SELECT plan FROM rounds WHERE (lineage, epoch) = (:lineage, :epoch)
    ORDER BY state = 'open' DESC, state = 'closed' DESC, round DESC, rowid DESC LIMIT 1
"""
_TRAINED_WITH = """
    SELECT plan FROM rounds WHERE (lineage, epoch, task, state) = (:lineage, :epoch, 'train', 'closed')
    ORDER BY round DESC LIMIT 1
"""


def refusals(log: Log, phase: Phase) -> list[dict[str, Any]]:
    """The refused updates of a phase that has failed, which ends a run; none, if it has not.

    It has if nothing was accepted of any device that was selected; a first phase also if it is void in spite of that.
    """
    ended = log.ended(phase)
    failed = phase.round == 0 or all(update["outcome"] != "accepted" for update in ended)
    return [update for update in ended if update["outcome"] == "rejected"] if failed else []


def refused_by_all(log: Log, lineage: str) -> Phase | None:
    """The open phase, if all that were selected have refused it."""
    epoch = log.known_epoch(lineage)
    if epoch is None or (row := log.open_phase(lineage, epoch)) is None:
        return None
    phase = Phase(lineage, epoch, row["round"], row["task"])
    return phase if {update["device"] for update in refusals(log, phase)} >= set(json.loads(row["expected"])) else None


def control_of(log: Log, rounds: Rounds) -> Control:
    """As many rounds more as have failed, as by `floe round start --rounds`: a mended plan gets all it was to have."""
    epoch = log.known_epoch(rounds.lineage) or 0
    last = Phase(rounds.lineage, epoch, log.last_round(rounds.lineage, epoch), "train")
    return Control(last=rounds.count + _failed(log, last), count=rounds.count)


def check_plan(plan: Plan, log: Log, lineage: str) -> None:
    """Raises `ConfigError` for another plan than a log has begun with, where what it makes would not fit."""
    before = _plan(log, _BEGUN_WITH, lineage, log.known_epoch(lineage)) or plan
    for key in sorted(changed(before, plan) & (PHASES_HANG_ON | MODELS_HANG_ON)):
        raise ConfigError(
            f"[plan] {key} = {getattr(plan, key)!r}, and {log.path} has begun with {getattr(before, key)!r}: choose "
            f"{FOLDERS}, another working directory, or {key} as it was"
        )


def nothing_left(phase: Phase, log: Log, rounds: Rounds, enough: str, plan: Plan) -> str:
    """What is said where all is done. `enough` says why no more rounds are needed, empty if all are over."""
    said = [over(log, phase), not_used(phase, log, plan), _go_on(phase, log, rounds, enough)]
    return f"{'; '.join(filter(None, said))}, or begin a new run in {FOLDERS}"


def not_used(phase: Phase, log: Log, plan: Plan) -> str:
    """What of the plan no training has had, and none will; empty if it is that of the last."""
    before = _plan(log, _TRAINED_WITH, phase.lineage, phase.epoch) or plan
    keys = changed(before, plan)
    return f"not used: {in_words(keys, plan)} (the last training had {in_words(keys, before)})" if keys else ""


def keeps_its_own(phase: Phase, before: Plan, plan: Plan, *, follows: bool) -> str:
    """What is said of a phase that was open, with this plan `before`; empty if `plan` is the same. `follows`: another
    round does.
    """
    if not (keys := changed(before, plan)):
        return ""
    after = "counts after it" if follows else "is not used"
    return f"{phase.task} {phase.round} keeps {in_words(keys, before)}; {in_words(keys, plan)} {after}"


def way_out(phase: Phase, log: Log, rounds: Rounds, enough: str) -> str:
    """What to do about a phase that has failed; `enough` as above."""
    if phase.task in MEASURING:
        return f"{_MEND}, and {_go_on(phase, log, rounds, enough)}"
    done = phase.round - _failed(log, phase)
    end_here = f", or with --rounds {done} to end with what is there" if done > 0 else ""
    return f"{_MEND}, and start again: it goes on from there{end_here}"


def nothing_made(phase: Phase, log: Log, rounds: Rounds, enough: str) -> str:
    """What is said where every round is void."""
    return f"{over(log, phase)}, so no round made a model; {_MEND}, and {_go_on(phase, log, rounds, enough)}"


def _go_on(phase: Phase, log: Log, rounds: Rounds, enough: str) -> str:
    """With what another round follows."""
    done = phase.round - _failed(log, phase)
    steps = [f"change what ends the rounds ({enough})"] if enough else []
    if rounds.count <= done:
        steps.append(f"go on with --rounds {done + 1}")
    return " and ".join(steps)


def _failed(log: Log, last: Phase) -> int:
    """How many rounds have failed: `--rounds` counts them not."""
    return sum(bool(refusals(log, phase)) for phase in log.void_rounds(last))


def _plan(log: Log, sql: str, lineage: str, epoch: int | None) -> Plan | None:
    row = log.db.execute(sql, {"lineage": lineage, "epoch": epoch}).fetchone()
    return msgspec.json.decode(row[0], type=Plan) if row else None
