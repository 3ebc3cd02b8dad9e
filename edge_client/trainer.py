"""`Trainer`: what one device does in a round with its rows and a base. Imports torch; knows nothing of the wire."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_client import evaluate, models, tensors
from edge_client.data.features import Features
from edge_client.evaluate import Scores
from edge_client.interrupted import Interrupted
from edge_client.ledger import Ledger
from edge_client.models import Model
from edge_client.optimise import optimise
from edge_client.scaling import Scaling, sums
from edge_client.tensors import Arrays
from floe.errors import ConfigError, DataError
from floe.plan import Plan
from floe.privacy import require
from floe.report import Metrics, Privacy, Report

__all__ = ["Interrupted", "Trainer"]

MEAN, SCALE = "scaling.mean", "scaling.scale"

Base = Mapping[str, npt.NDArray[Any]]
Stop = Callable[[], bool]


class Trainer:
    """Trains and evaluates on the rows of one device, as `plan` says.

    Equal rows, plan, base, device, round and number of threads give equal weights, bit for bit. A base holds the
    weights of the model (its state dict, buffers included) and, when the federation scales, "scaling.mean" and
    "scaling.scale", float64 of schema.shape: used, never trained. Without them where the plan says "standard", and
    always where it says "local", the device scales by its own training rows. An autoencoder trains on rows with label
    0, the normal ones, only.

    Sets torch's number of threads (`threads`; 0: left as it is, so that OMP_NUM_THREADS counts) and deterministic mode
    for the whole process. One call at a time. Nothing that is passed in is changed; `features` must not change either.

    With plan.privacy "example" the weights depend on the key in `ledger`, too, where training is counted before it
    begins; without a ledger nothing can be trained then. See `edge_client.dpsgd`.
    """

    def __init__(
        self, features: Features, plan: Plan, aliases: Mapping[str, str], threads: int = 0,
        ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        """Raises `ConfigError` for a model that cannot be made, does not suit the plan, or cannot be trained as
        privately as it says; `DataError` if no row can be trained on.
        """
        self._plan = plan
        self._ledger = ledger
        self._features = features
        self._threads = threads
        with self._torch(plan.seed):
            self._untrained = models.build(plan, features.schema, aliases)
        if plan.threshold == "federated" and self._untrained.objective != "reconstruction":
            raise ConfigError(
                f'model {self._untrained.name} classifies, and plan.threshold = "federated" is for models that '
                'reconstruct: set threshold = "local"'
            )
        self._train_x, self._train_y = _trainable(features, self._untrained)
        self._rows: _Rows | None = None
        if plan.privacy == "example":
            require("example")
            from edge_client import dpsgd, privacy

            dpsgd.check_private(self._untrained)
            privacy.check_delta(plan, len(self._train_x))

    def initial(self) -> Arrays:
        """The weights of a new model, which depend on `plan.seed` alone."""
        return tensors.to_arrays(self._untrained)

    def sums(self) -> Arrays:
        """The "sums.count", "sums.mean" and "sums.m2" of the rows it trains on; see `scaling.sums`.

        Raises `DataError` below `plan.min_rows`: sums over few rows would tell of single ones.
        """
        if self._plan.privacy == "example":
            raise DataError('plan.privacy = "example": sums of rows have no noise, so none leave this device')
        if len(self._train_x) < self._plan.min_rows:
            asked = f"the federation asks for {self._plan.min_rows} or more (plan.min_rows)"
            raise DataError(f"{len(self._train_x)} training rows are too few to tell their sums; {asked}")
        return sums(self._train_x)

    def train(self, base: Base, *, device: str, round: int, stop: Stop) -> tuple[Arrays, Report]:
        """Train from `base`; returns the new weights, without the scaling, and metrics before and after.

        Raises `Interrupted` soon after `stop()` is true, `DataError` for a base that does not fit the model and for
        training that diverges.
        """
        began = time.monotonic()
        seed = _seed(self._plan.seed, device, round)
        with self._torch(seed):
            model, rows = self._load(base)
            before, _ = self._measure(model, rows, stop)
            loss, spent = self._optimise(model, rows, base, device, round, stop)
            after, threshold = self._measure(model, rows, stop)
        report = Report(
            samples=len(rows.train_x),
            test_samples=len(rows.test_x),
            before=before,
            after=after,
            train_loss=loss,
            threshold=threshold,
            privacy=spent,
            seconds=time.monotonic() - began,
        )
        return tensors.to_arrays(model), report

    def predicted(self, rounds: int) -> float:
        """Epsilon of so many private rounds on these rows, of which nothing was spent before. Raises `DataError`."""
        from edge_client import privacy

        return privacy.predicted(self._plan, len(self._train_x), rounds)

    def _optimise(
        self, model: Model, rows: _Rows, base: Base, device: str, round: int, stop: Stop
    ) -> tuple[float | None, Privacy | None]:
        """Train `model` in place; the loss, which private training does not tell, and what it has spent."""
        if self._plan.privacy != "example":
            generator = torch.Generator().manual_seed(_seed(self._plan.seed, device, round))
            return optimise(model, rows.train_x, rows.target, self._plan, generator, stop), None
        if self._ledger is None:
            raise DataError('plan.privacy = "example" needs a ledger, and here is none to train by')
        from edge_client import dpsgd, privacy

        work = _work(self._plan, device, round, base, self._train_x, self._train_y)
        terms = privacy.agree(self._plan, len(self._train_x), self._ledger, work)
        dpsgd.optimise_privately(model, rows.train_x, rows.target, self._plan, terms, stop)
        return None, terms.privacy

    def evaluate(self, base: Base, *, threshold: float | None = None) -> Report:
        """Metrics of `base` on the test rows, as `before`, and the threshold: the one given, otherwise its own.

        Raises `DataError` as `train` does.
        """
        began = time.monotonic()
        with self._torch(self._plan.seed):
            model, rows = self._load(base)
            before, limit = self._measure(model, rows, lambda: False, threshold)
        seconds = time.monotonic() - began
        return Report(test_samples=len(rows.test_x), before=before, threshold=limit, seconds=seconds)

    def errors(self, base: Base) -> Scores:
        """The reconstruction error of every row trained on, float64 of shape (rows,). Raises `DataError` as above."""
        with self._torch(self._plan.seed):
            model, rows = self._load(base)
            return evaluate.training_errors(model, rows.train_x, lambda: False)

    @contextmanager
    def _torch(self, seed: int) -> Iterator[None]:
        """Threads, deterministic mode, and a global generator of its own for what cannot be handed one (dropout)."""
        if self._threads:
            torch.set_num_threads(self._threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    def _load(self, base: Base) -> tuple[Model, _Rows]:
        """A model with the weights of `base`, and the rows scaled as it says, which are kept until that changes."""
        model = replace(self._untrained, module=copy.deepcopy(self._untrained.module))
        tensors.load(model, {name: array for name, array in base.items() if name not in (MEAN, SCALE)})
        scaling = self._scaling(base)
        if self._rows is None or self._rows.scaling != scaling:
            self._rows = None
            self._rows = self._prepare(model, scaling)
        return model, self._rows

    def _scaling(self, base: Base) -> Scaling | None:
        if self._plan.scaling != "local" and (MEAN in base or SCALE in base):
            return Scaling.received(base.get(MEAN), base.get(SCALE), self._features.schema.shape)
        return Scaling.of(sums(self._train_x)) if self._plan.scaling != "none" else None

    def _prepare(self, model: Model, scaling: Scaling | None) -> _Rows:
        train_x, test_x = self._train_x, self._features.test_x
        if scaling is not None:
            train_x, test_x = scaling.apply(train_x), scaling.apply(test_x)
        inputs = tensors.rows(train_x)
        target = inputs if model.objective == "reconstruction" else tensors.rows(self._train_y)
        return _Rows(scaling, inputs, target, tensors.rows(test_x))

    def _measure(
        self, model: Model, rows: _Rows, stop: Stop, threshold: float | None = None
    ) -> tuple[Metrics, float | None]:
        """Metrics on the test rows and, for an autoencoder, the threshold: if none is given, from the training rows."""
        test_y = self._features.test_y
        if model.objective == "classification":
            return evaluate.classification(model, rows.test_x, test_y, stop), None
        if threshold is None:
            threshold = evaluate.threshold(model, rows.train_x, self._plan.threshold_quantile, stop)
        return evaluate.reconstruction(model, rows.test_x, test_y, threshold, stop), threshold


@dataclass(frozen=True)
class _Rows:
    """Scaled rows as tensors; `target` is what training aims at: the labels, or the rows themselves."""

    scaling: Scaling | None
    train_x: Tensor
    target: Tensor
    test_x: Tensor


def _trainable(features: Features, model: Model) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The training rows the model learns from: the normal ones (label 0) for an autoencoder, otherwise all."""
    if model.objective == "classification" or not features.train_y.any():
        return features.train_x, features.train_y
    normal = features.train_y == 0
    if not normal.any():
        raise DataError(f"model {model.name} learns from rows with label 0 (normal); train_y has none")
    return features.train_x[normal], features.train_y[normal]


def _seed(plan_seed: int, device: str, round: int) -> int:
    digest = hashlib.sha256(f"{plan_seed}\n{device}\n{round}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _work(plan: Plan, device: str, round: int, base: Base, *rows: npt.NDArray[Any]) -> str:
    """A name for all that private training depends on: no two works share their noise."""
    digest = hashlib.sha256(f"{device}\n{round}\n".encode() + msgspec.json.encode(plan))
    for name, array in [*sorted(base.items()), *(("", part) for part in rows)]:
        digest.update(f"\n{name}\n{array.dtype.str}\n{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
