"""Weights that a process writes for itself and reads again after a restart: with a digest, so that damage shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from floe import weights
from floe.errors import Refused

DIGEST = "digest"


def keep(path: Path, arrays: Mapping[str, weights.AnyArray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays atomically, their digest in the metadata. Raises `StoreError`."""
    about = dict(metadata or {})
    weights.write(path, arrays, about | {DIGEST: _digest(arrays, about)})


def fault_of(path: Path) -> str:
    """What is wrong with a file that `keep` wrote, in words; empty if nothing is."""
    try:
        metadata = dict(weights.check_numbers(path).metadata)
        right = metadata.pop(DIGEST, "")
        if right != _digest(weights.read(path), metadata):
            return "its content is not what was written"
    except (OSError, Refused) as error:
        return str(error)
    return ""


def _digest(arrays: Mapping[str, weights.AnyArray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for tensor in weights.layout_of(arrays).tensors:
        digest.update(f"\n{tensor.name}\n{weights.CODES[tensor.dtype]}\n{tensor.shape}\n".encode())
        digest.update(arrays[tensor.name].astype(tensor.dtype).tobytes())
    return digest.hexdigest()
