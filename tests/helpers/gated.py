"""Models and a trainer that wait while a file is there, whatever a device works on: for updates that come late.

The file is what the variable GATE of the device's process names. Floe's own models, and `plain`, otherwise unchanged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_client.interrupted import Interrupted
from floe.plan import Plan
from floe.report import Report
from helpers import plain

GATE = "GATE"
POLL_S = 0.02


class Plain(plain.Plain):
    """Trains when the gate is open."""

    def train(
        self, base: plain.Arrays, *, device: str, round: int, stop: Callable[[], bool]
    ) -> tuple[plain.Arrays, Report]:
        while Path(os.environ[GATE]).exists():
            if stop():
                raise Interrupted
            time.sleep(POLL_S)
        return super().train(base, device=device, round=round, stop=stop)


def autoencoder(shape: tuple[int, ...], classes: int, plan: Plan) -> Any:
    """Floe's autoencoder, by `[models]`."""
    return _gated("autoencoder", shape, classes, plan)


def mlp(shape: tuple[int, ...], classes: int, plan: Plan) -> Any:
    """Floe's multilayer perceptron, by `[models]`."""
    return _gated("mlp", shape, classes, plan)


def _gated(alias: str, shape: tuple[int, ...], classes: int, plan: Plan) -> Any:
    from edge_client import models

    made = models.BUILTIN[alias](shape, classes, plan)
    made.register_forward_pre_hook(_wait)
    return made


def _wait(*_: object) -> None:
    while Path(os.environ[GATE]).exists():
        time.sleep(POLL_S)
