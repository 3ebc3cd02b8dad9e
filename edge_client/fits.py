"""The device's part of `floe plan check`: whether a plan can be trained by on some data. Trains nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

from edge_client.data.load import load
from edge_client.own import Trainer
from edge_client.task import trainer_for
from floe.errors import FloeError
from floe.privacy import rounded_up
from floe.settings import Config


def faults(config: Config, data: str) -> Iterator[str]:
    """What a device with this data would refuse before it trains, in words."""
    budget = min([one for one in (config.plan.epsilon, config.device.epsilon) if one], default=math.inf)
    try:
        trainer = _trainer(config, data)
        if config.plan.privacy == "example" and (epsilon := _predicted(trainer, 1)) > budget:
            yield f"one round costs epsilon {rounded_up(epsilon)} of {budget:g}: raise noise_multiplier or epsilon"
    except FloeError as error:
        yield str(error)


def costs(config: Config, data: str) -> Iterator[str]:
    """What all rounds cost rows of this data that were never trained on before, where a plan is private for them."""
    if config.plan.privacy == "example":
        trainer, rounds = _trainer(config, data), config.rounds.count
        one, all_ = rounded_up(_predicted(trainer, 1)), rounded_up(_predicted(trainer, rounds))
        yield f"epsilon {one} after a round, {all_} after {rounds} rounds, delta {config.plan.delta:g}"


def _trainer(config: Config, data: str) -> Trainer:
    sys.path.append(str(config.folder))  # a model or data of the user's own may lie beside floe.toml
    return trainer_for(config, load(data, config.data, config.folder), config.plan)


def _predicted(trainer: Trainer, rounds: int) -> float:
    from edge_client import trainer as floes

    assert isinstance(trainer, floes.Trainer)  # no user's own trains privately
    return trainer.predicted(rounds)
