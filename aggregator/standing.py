"""Where the rounds stand, as the row of the table `standing`. Pure but for the clock that gives the deadline's time."""

from __future__ import annotations

from typing import Any

from aggregator.phases import Policy
from aggregator.rounds import missing, needed, quorum_of
from aggregator.states import State
from floe.store import now


def standing_of(state: State, policy: Policy) -> dict[str, Any]:
    """What changes with the rounds, and not with time alone."""
    phase = state.phase
    wanted = {"waiting": needed(state, policy), "open": missing(state, policy)}.get(state.stage, 0)
    return {
        "lineage": phase.lineage, "epoch": phase.epoch, "round": phase.round, "task": phase.task,
        "stage": state.stage, "held": state.held, "last": state.last, "online": len(state.online),
        "needed": wanted, "quorum": quorum_of(state, policy),
    }  # fmt: skip


def deadline_of(state: State, moment: float) -> str | None:
    """When the open phase has its deadline, or the waiting one may open; None where nothing waits for a time."""
    left_s = state.seconds_left(moment) if state.stage in ("open", "waiting") else 0.0
    return now(left_s) if left_s else None
