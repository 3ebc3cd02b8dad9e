"""What the user brings by "package.module:name": found, and called. Knows nothing of torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from edge_client.data.features import Features
from floe.errors import ConfigError
from floe.plan import Plan
from floe.report import Report

Arrays = Mapping[str, npt.NDArray[Any]]


class Trainer(Protocol):
    """What trains on one device: Floe's own (`edge_client.trainer.Trainer`, torch), or the user's, made of anything.

    Arrays are float16, float32, float64 or int64, by name. Equal rows, plan, base, device and round must give equal
    arrays, or a restart gives another model. A method may raise whatever it likes: the device then reports a failure.
    """

    def initial(self) -> Arrays:
        """The weights of a new model; equal on every device."""

    def sums(self) -> Arrays:
        """`sums.count`, `.mean`, `.m2` of the training rows; asked for only if the plan's scaling is `standard`."""

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        """New weights, with the names, shapes and dtypes of `initial`; the base may have `scaling.*` beside them."""

    def evaluate(self, base: Arrays, *, threshold: float | None = None) -> Report:
        """Metrics of `base`, as `before`. `threshold`: the agreed error above which a row counts as an anomaly; not
        given while the plan's threshold is `local`.
        """

    def errors(self, base: Arrays) -> npt.NDArray[np.float64]:
        """The reconstruction error of every training row; asked for only if the plan's threshold is `federated`."""


def resolve(name: str, target: str) -> Callable[..., Any]:
    """What "package.module:function" names. `name` is how messages call it. Raises `ConfigError`."""
    path, _, attribute = target.partition(":")
    try:
        function = getattr(importlib.import_module(path), attribute)
    except Exception as error:
        raise ConfigError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ConfigError(f"{name} is a {type(function).__name__}; a function is needed")
    return cast(Callable[..., Any], function)


def own_trainer(alias: str, target: str, features: Features, plan: Plan) -> Trainer:
    """The user's trainer, called with (features, plan). Raises `ConfigError`."""
    name = f"trainer {alias!r} ({target})"
    function = resolve(name, target)
    try:
        made = function(features, plan)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{name} failed when called with (features, plan): {problem}") from error
    for method in ("initial", "sums", "train", "evaluate", *(("errors",) if plan.threshold == "federated" else ())):
        if not callable(getattr(made, method, None)):
            raise ConfigError(f"{name} made a {type(made).__name__} without {method}()")
    return cast(Trainer, made)
