"""The device's part of `floe plan check`: whether a plan can be trained by on some data. Trains nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from edge_client.data.load import load
from edge_client.task import trainer_for
from floe.errors import FloeError
from floe.settings import Config


def faults(config: Config, data: str) -> Iterator[str]:
    """What a device with this data would refuse before it trains, in words."""
    sys.path.append(str(config.folder))  # a model or data of the user's own may lie beside floe.toml
    try:
        trainer_for(config, load(data, config.data, config.folder), config.plan)
    except FloeError as error:
        yield str(error)
