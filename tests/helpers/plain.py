"""A trainer without torch, by the hook for one's own: softmax regression by gradient descent. Quick to start, seeded.

`plan.hidden` = [n] adds a tensor of n x 1000 numbers, which moves too: a model of any size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import structs

from edge_client.data.features import Features
from edge_client.interrupted import Interrupted
from floe.plan import Plan
from floe.report import Metrics, Report

Arrays = Mapping[str, npt.NDArray[Any]]
SECTIONS: Mapping[str, Mapping[str, object]] = {
    "plan": {"model": "plain", "scaling": "none"},
    "trainers": {
        "plain": "helpers.plain:Plain",
        "held": "helpers.plain:Held",
        "canary": "helpers.plain:Canary",
        "liar": "helpers.plain:Liar",
    },
}
CANARY = b"a canary that sings on the wire."  # of finite numbers of four bytes each
_CANARY = np.frombuffer(CANARY, np.float32)


class Plain:
    """Implements `edge_client.own.Trainer`."""

    def __init__(self, features: Features, plan: Plan) -> None:
        self._features = features
        self._plan = plan

    def initial(self) -> Arrays:
        inputs, classes = int(np.prod(self._features.schema.shape)), self._features.schema.classes
        ballast = {"ballast": np.zeros((self._plan.hidden[0], 1000), np.float32)} if self._plan.hidden else {}
        return {"weight": np.zeros((inputs, classes), np.float32), "bias": np.zeros(classes, np.float32), **ballast}

    def sums(self) -> Arrays:
        x = self._features.train_x.astype(np.float64)
        return {
            "sums.count": np.array([len(x)], np.int64),
            "sums.mean": x.mean(axis=0),
            "sums.m2": ((x - x.mean(axis=0)) ** 2).sum(axis=0),
        }

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        x = self._features.train_x.reshape(len(self._features.train_x), -1)
        y = np.eye(self._features.schema.classes, dtype=np.float32)[self._features.train_y]
        weight, bias = base["weight"].astype(np.float32), base["bias"].astype(np.float32)
        for _ in range(self._plan.epochs):
            error = (_softmax(x @ weight + bias) - y) / len(x)
            weight = weight - np.float32(self._plan.learning_rate) * (x.T @ error)
            bias = bias - np.float32(self._plan.learning_rate) * error.sum(axis=0)
        trained: dict[str, npt.NDArray[Any]] = {"weight": weight, "bias": bias}
        if "ballast" in base:
            seed = hashlib.sha256(f"{self._plan.seed} {device} {round}".encode()).digest()
            trained["ballast"] = base["ballast"] + np.random.default_rng(list(seed)).normal(size=1000).astype(
                np.float32
            )
        test = len(self._features.test_x)
        report = Report(samples=len(x), test_samples=test, before=self._measure(base), after=self._measure(trained))
        return trained, report

    def evaluate(self, base: Arrays, *, threshold: float | None = None) -> Report:
        return Report(test_samples=len(self._features.test_x), before=self._measure(base), threshold=threshold)

    def errors(self, base: Arrays) -> npt.NDArray[np.float64]:
        """How far every training row is from its class: as good as a reconstruction error."""
        x, y = self._features.train_x.reshape(len(self._features.train_x), -1), self._features.train_y
        errors: npt.NDArray[np.float64] = 1.0 - _softmax(x @ base["weight"] + base["bias"])[np.arange(len(y)), y]
        return errors.astype(np.float64)

    def _measure(self, arrays: Arrays) -> Metrics:
        x, y = self._features.test_x.reshape(len(self._features.test_x), -1), self._features.test_y
        shares = _softmax(x @ arrays["weight"] + arrays["bias"])
        loss = float(-np.log(shares[np.arange(len(y)), y] + 1e-12).mean())
        return Metrics(loss=loss, accuracy=float((shares.argmax(axis=1) == y).mean()))


class Held(Plain):
    """The same, but it does not begin a round while `hold-<device>-<round>` is in the working directory."""

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        while Path(f"hold-{device}-{round}").exists():
            if stop():
                raise Interrupted
            time.sleep(0.02)
        return super().train(base, device=device, round=round, stop=stop)


class Canary(Plain):
    """The same, with a tensor whose bytes are `CANARY`."""

    def initial(self) -> Arrays:
        return {**super().initial(), "canary": _CANARY}

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        trained, report = super().train(base, device=device, round=round, stop=stop)
        return {**trained, "canary": _CANARY}, report


class Liar(Plain):
    """The same, but the device `liar` sends numbers as large as they may be, and says that it has many rows."""

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        trained, report = super().train(base, device=device, round=round, stop=stop)
        if device != "liar":
            return trained, report
        huge = {name: np.full_like(array, 3e38) for name, array in trained.items()}
        return huge, structs.replace(report, samples=10**9)


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
