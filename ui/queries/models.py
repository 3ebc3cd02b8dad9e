"""The registry: all global models, which one is the present one, and who gave to each with which weight."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from floe.sqlite import Database
from floe.store import present_model
from ui.queries.rows import Time, decoded, made

MODELS = """
SELECT epoch, round, sha256, file, bytes, devices, samples, loss, accuracy, roc_auc, test_samples, created_at
FROM models
WHERE lineage = :lineage ORDER BY epoch DESC, round DESC
"""

CONTRIBUTORS = """
SELECT device, round, weight, samples, loss, accuracy, roc_auc, base_accuracy, bytes, seconds, time FROM updates
WHERE lineage = :lineage AND epoch = :epoch AND merged = :round AND task = :task AND outcome = 'accepted'
ORDER BY id
"""

PLAN = "SELECT plan FROM rounds WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = :task"


@dataclass(frozen=True)
class Model:
    """A version of the global model. `file` is relative to [paths] models, `bytes` its size; `samples` training rows.

    Loss, accuracy and ROC-AUC (0..1) were measured on `test_samples` test rows by the devices that started from it;
    None: nobody has yet. `created_at` is UTC.
    """

    epoch: int
    round: int
    sha256: str
    file: str
    bytes: int
    devices: int
    samples: int
    loss: float | None
    accuracy: float | None
    roc_auc: float | None
    test_samples: int | None
    created_at: Time

    @property
    def task(self) -> str:
        """The task of the round that made it."""
        return "train" if self.round else "init"


@dataclass(frozen=True)
class Registry:
    """All models, newest first. `present`: the one that the next round starts from; None: there is none yet.

    `promoted`: an operator chose it; otherwise it is the newest.
    """

    models: tuple[Model, ...]
    present: Model | None
    promoted: bool


@dataclass(frozen=True)
class Contributor:
    """An update in a model. `round`: the one it was trained in; `weight`: its share in the mean, None: not recorded.

    Figures are of the device's own model on its own test rows, `base_accuracy` of the global one before.
    """

    device: str
    round: int
    weight: float | None
    samples: int | None
    loss: float | None
    accuracy: float | None
    roc_auc: float | None
    base_accuracy: float | None
    bytes: int
    seconds: float | None
    time: Time


def registry(db: sqlite3.Connection, lineage: str) -> Registry:
    """The global models of a lineage, and which is the present one."""
    found = tuple(made(Model, row) for row in db.execute(MODELS, {"lineage": lineage}))
    if not found:
        return Registry((), None, False)
    row = present_model(Database(db), lineage, found[0].epoch)
    present = next((one for one in found if row and (one.epoch, one.round) == (row["epoch"], row["round"])), found[0])
    return Registry(found, present, present != found[0])


def contributors(db: sqlite3.Connection, lineage: str, model: Model) -> tuple[Contributor, ...]:
    """Whose updates are in a model, in the order of their arrival."""
    phase = {"lineage": lineage, "epoch": model.epoch, "round": model.round, "task": model.task}
    return tuple(made(Contributor, row) for row in db.execute(CONTRIBUTORS, phase))


def plan(db: sqlite3.Connection, lineage: str, model: Model) -> dict[str, Any]:
    """The training plan of the round that made a model; empty for one that no round of this log made."""
    phase = {"lineage": lineage, "epoch": model.epoch, "round": model.round, "task": model.task}
    row = db.execute(PLAN, phase).fetchone()
    return decoded(row[0], dict[str, Any], "rounds.plan") if row else {}
