"""A trainer that does nothing, by the hook for one's own (`[trainers]`): what is left of a round is Floe's.

It adds 1 to every number of the base, so that global model r begins with the number r: what it is given tells which
model has come, and it writes down when.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from floe.plan import Plan
from floe.report import Metrics, Report

Arrays = Mapping[str, npt.NDArray[Any]]
TENSOR = "w"
FOLDER = "hands"  # in the working folder of the device
NOTHING = Metrics(loss=0.0, accuracy=0.0)


class Nothing:
    """Implements `edge_client.own.Trainer`."""

    def __init__(self, features: object, plan: Plan) -> None:
        self._path = Path(FOLDER, f"{os.getpid()}.txt")

    def initial(self) -> Arrays:
        raise NotImplementedError("a benchmark begins with a model")

    def sums(self) -> Arrays:
        raise NotImplementedError("a benchmark scales nothing")

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        self._came(base)
        return {TENSOR: base[TENSOR] + np.float32(1)}, Report(samples=1, test_samples=1, before=NOTHING)

    def evaluate(self, base: Arrays) -> Report:
        self._came(base)
        return Report(test_samples=1, before=NOTHING)

    def _came(self, base: Arrays) -> None:
        # CLOCK_MONOTONIC is one clock for all processes of a machine (clock_gettime(2)).
        moment = time.monotonic()
        with self._path.open("a") as file:
            file.write(f"{int(base[TENSOR][0])} {moment}\n")
