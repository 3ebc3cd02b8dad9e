"""What a device does about the rounds that are asked for: which it follows, and what comes next. Pure."""

from __future__ import annotations

from typing import Literal

from floe.messages import Phase, Round

Action = Literal["nothing", "fetch", "work", "cancel"]


def decide(order: Round | None, *, selected: bool, done: bool, base: str, working_on: Phase | None) -> Action:
    """What a device does next.

    `done`: its result of this phase is in the outbox or was answered. `base`: the SHA-256 of the model it holds.
    `working_on`: the phase that its worker is busy with.
    """
    if order is None:
        return "nothing" if working_on is None else "cancel"
    asked = order.state == "open" and selected and not done
    if working_on is not None:
        return "nothing" if asked and working_on == order.phase else "cancel"
    if order.base is not None and order.base.sha256 != base and (asked or order.state != "open"):
        return "fetch"  # also between rounds, and after the last: every device ends with the newest model
    return "work" if asked else "nothing"


def follow(newest: Round | None, begun: Round | None, *, under_way: bool) -> Round | None:
    """The order to follow: the newest, unless one before it is under way whose update will still be merged."""
    if newest is None or begun is None or not under_way:
        return newest
    now, then = newest.phase, begun.phase
    same_chain = (then.lineage, then.epoch, then.task, now.task) == (now.lineage, now.epoch, "train", "train")
    late = same_chain and newest.state != "finished" and 1 <= now.round - then.round <= newest.staleness
    return begun if late else newest
