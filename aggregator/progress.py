"""How the global models have done, as the log knows it: what the stop criteria look at."""

from __future__ import annotations

from aggregator.phases import Policy, Progress
from floe.messages import Phase
from floe.sqlite import Database

# A model is measured by the round after it; the evaluation at the end must not take back that it was the last.
_MODELS = """
    SELECT round, {metric} AS value FROM models
    WHERE (lineage, epoch) = (:lineage, :epoch) AND round > :since AND round < :round AND {metric} IS NOT NULL
"""

# Without a global model: the devices' own, after training.
_REPORTS = """
    SELECT merged AS round, sum({metric} * test_samples) / sum(test_samples) AS value FROM updates
    WHERE (lineage, epoch, task) = (:lineage, :epoch, 'train') AND merged > :since AND merged <= :round
        AND outcome = 'accepted' AND {metric} IS NOT NULL AND test_samples > 0
    GROUP BY merged
"""


def read_progress(db: Database, phase: Phase, policy: Policy, since: int) -> Progress:
    """The progress of a chain up to a phase that has closed, after round `since`.

    With `report` `weights` over the models that were made before the phase; with `accuracy` over what the devices
    reported of its round and those before it.
    """
    metric = policy.rounds.metric
    source = (_REPORTS if policy.plan.report == "accuracy" else _MODELS).format(metric=metric)
    key = {"lineage": phase.lineage, "epoch": phase.epoch, "round": phase.round, "since": since or -1}
    newest = db.execute(f"{source} ORDER BY round DESC LIMIT 1", key).fetchone()
    if newest is None:
        return Progress()
    order = "ASC" if metric == "loss" else "DESC"
    best = db.execute(f"{source} ORDER BY value {order}, round LIMIT 1", key).fetchone()
    return Progress(newest[1], newest[0] - best[0])
