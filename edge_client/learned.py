"""What a device has learned so far, beside the global model: its personal layers, and how good its own model was.

All of it is a function of the phases before the one that is worked on, so that a phase done again gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_client.local import LocalModels
from edge_client.own import Arrays, Trainer
from floe import weights
from floe.errors import DataError
from floe.messages import Phase
from floe.personal import personal_of
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.schema import Schema
from floe.service import log

AFTER, SCHEMA = "after", "schema"


class Learned:
    """Of one device, with rows of this schema, in a folder."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self._models = LocalModels(folder)
        self._schema = schema

    def joined(self, phase: Phase, plan: Plan, shared: Arrays, trainer: Trainer) -> Arrays:
        """The model that a phase starts from: what is shared, and the personal layers, the newest or those of a new
        model; where nothing is shared, all that the device has learned. What it learned from rows of another schema
        does not count. Raises `DataError`.
        """
        if not shared:
            return self._before(phase) or trainer.initial()
        if not plan.personal:
            return shared
        initial = trainer.initial()
        personal = personal_of(initial, plan.personal)
        if there := personal & shared.keys():
            raise DataError(f"the global model has {min(there)}, which plan.personal keeps on the devices")
        new = {name: initial[name] for name in personal}
        kept = {name: array for name, array in self._before(phase).items() if name in personal}
        if kept and not _alike(kept, new):
            log("warning: the personal layers that are kept are those of another model: they begin anew")
            kept = {}
        return {**shared, **(kept or new)}

    def own(self, phase: Phase) -> Metrics | None:
        """How good the device's own model was, as its last training before a phase left it."""
        path = self._models.before(phase)
        text = weights.read_layout_of(path).metadata.get(AFTER, "null") if path and self._fits(path) else "null"
        return msgspec.json.decode(text, type=Metrics | None)

    def keep(self, phase: Phase, trained: Arrays, shared: Arrays, report: Report) -> None:
        """Remember what a training phase has learned and does not share. Raises `StoreError`."""
        own = {name: array for name, array in trained.items() if name not in shared}
        about = {SCHEMA: self._schema.to_json(), AFTER: msgspec.json.encode(report.after).decode()}
        self._models.keep(phase, own, about)

    def _before(self, phase: Phase) -> Arrays:
        path = self._models.before(phase)
        if path is None:
            return {}
        if not self._fits(path):
            log(f"warning: {path}: learned from rows of another schema: what this device keeps for itself begins anew")
            return {}
        return weights.read(path)

    def _fits(self, path: Path) -> bool:
        """Whether a model was trained on rows of the schema that they have now."""
        return weights.read_layout_of(path).metadata.get(SCHEMA) == self._schema.to_json()


def shared_of(arrays: Arrays, plan: Plan) -> Arrays:
    """What of a model may leave the device. Raises `ConfigError` for patterns that do not suit it."""
    personal = personal_of(arrays, plan.personal)
    return {name: array for name, array in arrays.items() if name not in personal}


def _alike(one: Arrays, other: Arrays) -> bool:
    return _form(one) == _form(other)


def _form(arrays: Arrays) -> Mapping[str, object]:
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}
