"""What a device does in a phase: from the base to the weights and the report that it sends. Knows nothing of the wire.

The only place that imports Floe's trainer, and so torch, and only when there is work for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from edge_client.data.features import Features
from edge_client.interrupted import Interrupted
from edge_client.learned import Learned, shared_of
from edge_client.ledger import Ledger
from edge_client.own import Arrays, Trainer, own_trainer
from edge_client.residuals import Residuals
from floe import weights
from floe.encode import encode_update
from floe.errors import ConfigError, DataError, FloeError, Refused, StoreError
from floe.messages import Phase
from floe.parcel import Buffers
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema
from floe.settings import Config
from floe.threshold import histogram


@dataclass(frozen=True)
class Base:
    """The weights that a phase starts from, and the schema of the rows that they are for; None: they name none."""

    arrays: Arrays
    schema: Schema | None


Keep = Callable[[Arrays, Report, Phase, Plan], None]
Read = Callable[[], Base]


def read_base(source: weights.Source) -> Base:
    """The global model of a file. Raises `Refused`, `OSError`."""
    layout = weights.read_layout_of(source)
    text = layout.metadata.get("schema")
    return Base(weights.read(source), Schema.from_json(text) if text is not None else None)


def metadata_of(features: Features, plan: Plan) -> dict[str, str]:
    """What an update says of the rows that it was made from."""
    return {"schema": features.schema.to_json()} if plan.schema == "shared" else {}


class Task:
    """The work of one device, `name`, on its rows. `local`: where what it has learned by itself is kept, in `rounding`
    what encoding took from its updates, in `privacy` what it has spent. Raises `StoreError` where that is damaged.

    `keep` is called with every model that was measured or trained, with its scaling.
    """

    def __init__(self, config: Config, name: str, features: Features, local: Path, keep: Keep) -> None:
        self._config = config
        self._name = name
        self._features = features
        self._learned = Learned(local, features.schema)
        self._residuals = Residuals(local / "rounding")
        self._ledger = Ledger(local / "privacy", config.device.epsilon)
        self._keep = keep
        self._trainer: Trainer | None = None
        self._plan: Plan | None = None

    def do(
        self, phase: Phase, plan: Plan, base: Read | None, stop: Callable[[], bool], threshold: float | None = None
    ) -> tuple[Buffers | None, Report]:
        """What is to be sent: a file of weights, encoded if the plan says so (None for a report alone), and the report.
        `base` reads the global model, `threshold` is the one that was agreed for it.

        What would fail again is a report too, so that the round does not wait for it: a fault of the data, and
        anything that a model of the user's own raises. Raises what the disk or the memory had no room for, and
        `Interrupted`.
        """
        try:
            read = cache(base) if base else None
            arrays, report = self._result(phase, plan, read, stop, threshold)
            return (self._file(phase, plan, read, arrays) if arrays else None), report
        except (StoreError, OSError, MemoryError, Interrupted):
            raise
        except FloeError as error:
            return None, failure(str(error))
        except (Exception, SystemExit) as error:
            return None, failure(f"model {plan.model!r}: {type(error).__name__}: {error}")

    def _result(
        self, phase: Phase, plan: Plan, base: Read | None, stop: Callable[[], bool], threshold: float | None
    ) -> tuple[Arrays, Report]:
        if self._config.device.epsilon and plan.privacy != "example" and phase.task != "evaluate":
            raise ConfigError(f'plan.privacy = "{plan.privacy}", and device.epsilon asks for "example" on this device')
        shared = self._shared(plan, base)
        trainer = self._trainer_for(plan)
        if phase.task in ("sums", "init"):
            if self._reports(plan) == "accuracy":
                return {}, failure("this device sends no weights (report = accuracy)")
            return (trainer.sums() if phase.task == "sums" else shared_of(trainer.initial(), plan)), Report()
        start = self._learned.joined(phase, plan, shared, trainer)
        if phase.task == "train":
            return self._trained(phase, plan, shared, start, stop)
        if phase.task == "threshold":
            return {}, counted(trainer, start, plan)
        agreed = threshold if plan.threshold == "federated" else None
        found = trainer.evaluate(start) if agreed is None else trainer.evaluate(start, threshold=agreed)
        report: Report = replace(found, after=self._learned.own(phase))
        self._keep(start, report, phase, plan)
        return {}, _sent(report, plan)

    def _trained(
        self, phase: Phase, plan: Plan, shared: Arrays, start: Arrays, stop: Callable[[], bool]
    ) -> tuple[Arrays, Report]:
        trained, report = self._trainer_for(plan).train(start, device=self._name, round=phase.round, stop=stop)
        update = shared_of(trained, plan)
        self._learned.keep(phase, trained, update if shared else {}, report)
        scaling = {name: array for name, array in shared.items() if name.startswith("scaling.")}
        self._keep({**trained, **scaling}, report, phase, plan)
        return (update if self._reports(plan) == "weights" else {}), _sent(report, plan)

    def _file(self, phase: Phase, plan: Plan, base: Read | None, arrays: Arrays) -> Buffers:
        ready = {name: np.asarray(array) for name, array in arrays.items()}
        about = metadata_of(self._features, plan)
        if phase.task != "train":
            return weights.buffers(ready, about)
        if plan.upload == "weights" or base is None:
            self._residuals.keep(phase, {})
            return weights.buffers(ready, about)
        start = base()
        if start.schema == self._features.schema:
            about = {}  # the base says the same
        encoded = encode_update(
            ready, start.arrays, self._residuals.before(phase), plan.upload, about,
            seed=plan.seed, device=self._name, round=phase.round,
        )  # fmt: skip
        self._residuals.keep(phase, encoded.residual)
        return encoded.buffers

    def _reports(self, plan: Plan) -> str:
        return "accuracy" if "accuracy" in (plan.report, self._config.device.report) else "weights"

    def _shared(self, plan: Plan, base: Read | None) -> Arrays:
        """The global model; nothing, where there is none."""
        if base is None:
            return {}
        found = base()
        if plan.schema == "shared":
            if found.schema is None:
                raise Refused("schema", "the global model names none, and the plan says that all devices share one")
            if difference := self._features.schema.difference(found.schema):
                raise Refused("schema", difference)
        return found.arrays

    def _trainer_for(self, plan: Plan) -> Trainer:
        if self._trainer is None or self._plan != plan:
            self._trainer = trainer_for(self._config, self._features, plan, self._ledger)
            self._plan = plan
        return self._trainer


def trainer_for(config: Config, features: Features, plan: Plan, ledger: Ledger | None = None) -> Trainer:
    """What trains by a plan: the user's own, or Floe's; without a ledger, not privately. Raises `ConfigError`,
    `DataError`.
    """
    found = _made(config, features, plan, ledger)
    if plan.personal:
        shared_of(found.initial(), plan)
    return found


def _made(config: Config, features: Features, plan: Plan, ledger: Ledger | None) -> Trainer:
    own = config.trainers.get(plan.model)
    if own and plan.privacy == "example":
        raise ConfigError(
            f'plan.privacy = "example": trainer {plan.model!r} ({own}) is your own, and what it does with single rows '
            "is not known: bring a model instead ([models])"
        )
    if own:
        return own_trainer(plan.model, own, features, plan)
    from edge_client import trainer

    return trainer.Trainer(features, plan, config.models, config.device.threads, ledger)


def _sent(report: Report, plan: Plan) -> Report:
    """What leaves of a report: with privacy of examples, nothing that is read from training rows without noise."""
    if plan.privacy != "example":
        return report
    return replace(report, threshold=None, histogram=(), train_loss=None)


def counted(trainer: Trainer, base: Arrays, plan: Plan) -> Report:
    """The errors of a model on the rows that are trained on, counted. Raises `DataError` below `plan.min_rows`."""
    errors = trainer.errors(base)
    if len(errors) < plan.min_rows:
        asked = f"the federation asks for {plan.min_rows} or more (plan.min_rows)"
        raise DataError(f"{len(errors)} training rows are too few to tell how large their errors are; {asked}")
    return Report(samples=len(errors), histogram=histogram(errors))


def failure(text: str) -> Report:
    """A report that the device could not do its part; `text` may come from anywhere."""
    clean = " ".join(text.encode(errors="replace").decode().split())
    return Report(failure=clean[:500])
