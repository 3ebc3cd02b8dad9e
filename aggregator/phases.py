"""Which phase follows which, and when it is enough: pure.

The life of a federation is a chain of phases:

    sums (0)  ->  init (0)  ->  train (1) ... train (n)  ->  threshold (n)  ->  evaluate (n)  ->  the end
    if scaled     if no model                                if federated       if weights
"""

from __future__ import annotations

from dataclasses import dataclass

from floe.messages import Phase, Task
from floe.plan import Plan
from floe.settings import Rounds

UNLIMITED = 2**31
MEASURING: tuple[Task, ...] = ("threshold", "evaluate")  # what follows the last training


@dataclass(frozen=True)
class Policy:
    """What the operator chose. `rounds` says who, how many and how long; `plan` what is done."""

    rounds: Rounds
    plan: Plan

    @property
    def asynchronous(self) -> bool:
        return self.rounds.mode == "asynchronous"

    @property
    def max_staleness(self) -> int:
        """For how many rounds an update that comes late is still taken."""
        if self.asynchronous:
            return UNLIMITED  # every update is a round there: a limit would be one on the number of devices
        return self.rounds.max_staleness if self.rounds.late == "merge" else 0

    @property
    def models_held(self) -> int:
        """How many models are served: where late updates are taken, a slow device may finish what it has begun."""
        return 1 + min(self.max_staleness, 3)


@dataclass(frozen=True)
class Progress:
    """How the global models have done since the last start: the newest measured metric, rounds since the best one."""

    newest: float | None = None
    since_best: int = 0


def first_phase(lineage: str, epoch: int, policy: Policy, *, model: int | None, scaled: bool) -> Phase:
    """Where a chain begins: `model` is the round of the newest global model, None if there is none."""
    task: Task = "train"
    if policy.plan.report == "weights" and model is None:
        task = "init" if scaled or policy.plan.scaling != "standard" else "sums"
    return Phase(lineage, epoch, (model or 0) + 1 if task == "train" else 0, task)


def phase_after(phase: Phase, policy: Policy, *, last: int, has_model: bool, enough: str = "") -> Phase | None:
    """The phase that follows; None after the last.

    `last` is the last round to train; `enough` a reason to end before it (`reason_to_stop`).
    """
    if phase.task == "sums" and not has_model:
        return Phase(phase.lineage, phase.epoch, 0, "init")
    if phase.task in ("sums", "init"):
        return Phase(phase.lineage, phase.epoch, 1, "train")
    if phase.round < last and not enough:
        return Phase(phase.lineage, phase.epoch, phase.round + 1, "train")
    if phase.task == "evaluate" or policy.plan.report == "accuracy":
        return None
    agrees = phase.task == "train" and policy.plan.threshold == "federated"
    return Phase(phase.lineage, phase.epoch, phase.round, "threshold" if agrees else "evaluate")


def reason_to_stop(progress: Progress, rounds: Rounds) -> str:
    """Why no more rounds are needed, in words; empty if they are."""
    newest = progress.newest
    if newest is None:
        return ""
    reached = newest <= rounds.target if rounds.metric == "loss" else newest >= rounds.target
    if rounds.target and reached:
        return f"{rounds.metric} {newest:.6g} has reached the target {rounds.target:g}"
    if rounds.patience and progress.since_best >= rounds.patience:
        return f"{rounds.metric} got no better in {progress.since_best} rounds"
    return ""
