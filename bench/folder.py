"""What a benchmark's federation is made of: floe.toml, secret.key, a model of any size, one row of data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench.trainer import FOLDER, TENSOR
from floe import weights
from floe.config import HEADER_BYTES, MB
from floe.files import write_atomically
from floe.identity import new_secret
from floe.messages import Suite
from floe.schema import Schema
from floe.seal import sealed_length
from floe.settings import Security
from floe.signing import Algorithm
from floe.transfer import chunk_bytes_for

SCHEMA = Schema((1,), 2)
INITIAL = "initial.safetensors"
Trust = Literal["shared", Algorithm]  # a shared key, or enrolled devices that sign so


@dataclass(frozen=True)
class Settings:
    """What is measured. `params` are float32. Only who is enrolled has no `secret.key`."""

    clients: int
    params: int
    rounds: int
    suite: Suite
    trust: Trust = "shared"

    @property
    def bytes(self) -> int:
        """Of the model's numbers."""
        return self.params * 4

    def sections(self, port: int) -> dict[str, dict[str, object]]:
        """floe.toml: a cap and a packet size that the model fits, everything else as it comes."""
        cap = max(Security().max_transfer_mb, -(-self.bytes // MB) + 1)
        packet = sealed_length(self.suite, chunk_bytes_for(cap * MB)) + HEADER_BYTES
        signatures = {} if self.trust == "shared" else {"signatures": self.trust}
        return {
            "mqtt": {"port": port},
            "security": {"suite": self.suite, "max_transfer_mb": cap, **signatures},
            "broker": {"max_payload_mb": max(2, -(-packet // MB))},
            "rounds": {"count": self.rounds, "devices": self.clients, "initial": INITIAL, "deadline_s": 86400.0},
            "plan": {"model": "nothing", "scaling": "none"},
            "trainers": {"nothing": "bench.trainer:Nothing"},
        }


def make(folder: Path, settings: Settings, port: int) -> None:
    """Write what the processes need. Raises `StoreError`."""
    text = "".join(f"[{section}]\n{_keys(keys)}\n" for section, keys in settings.sections(port).items())
    write_atomically(folder / "floe.toml", text.encode())
    if settings.suite != "plaintext" and settings.trust == "shared":
        new_secret(folder / "secret.key")
    (folder / FOLDER).mkdir()
    (folder / "features").mkdir()
    for part in ("train", "test"):
        np.save(folder / "features" / f"{part}_x.npy", np.zeros((2, 1), np.float32))
        np.save(folder / "features" / f"{part}_y.npy", np.arange(2))
    numbers = np.random.default_rng(0).standard_normal(settings.params, np.float32)
    numbers[0] = 0  # global model r begins with r: bench/trainer.py
    weights.write(folder / INITIAL, {TENSOR: numbers}, {"schema": SCHEMA.to_json()})


def model_bytes(settings: Settings) -> int:
    """The size of a global model's file: a header and the numbers."""
    layout = weights.layout_of({TENSOR: np.broadcast_to(np.float32(0), settings.params)}, {"schema": SCHEMA.to_json()})
    return len(weights.header(layout)) + layout.data_bytes


def _keys(keys: Mapping[str, object]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
