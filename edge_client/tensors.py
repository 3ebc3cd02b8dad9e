"""Weights and rows between NumPy and torch: state dict <-> named arrays. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_client.models import Model
from floe.errors import DataError

Arrays = dict[str, npt.NDArray[Any]]


def to_arrays(model: Model) -> Arrays:
    """The state dict, buffers included, as contiguous arrays of their own."""
    return {name: np.array(tensor.detach().numpy(), order="C") for name, tensor in model.module.state_dict().items()}


def load(model: Model, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy `weights` into the model.

    Raises `DataError` naming the first tensor that is missing, unknown, or of another shape or type.
    """
    expected = model.module.state_dict()
    for name, tensor in expected.items():
        want = f"{_dtype(tensor)}{tuple(tensor.shape)}"
        if name not in weights:
            raise DataError(f"the global model has no {name}; model {model.name} needs it as {want}")
        given = f"{weights[name].dtype.name}{weights[name].shape}"
        if given != want:
            raise DataError(f"{name} is {given} in the global model and {want} in model {model.name}")
    for name in weights:
        if name not in expected:
            raise DataError(f"the global model has {name} of shape {weights[name].shape}, model {model.name} has not")
    model.module.load_state_dict({name: torch.from_numpy(weights[name].copy()) for name in expected})


def rows(x: npt.NDArray[Any]) -> Tensor:
    """Rows as a tensor that shares memory where it can; a read-only array (a memory map) is copied."""
    return torch.from_numpy(x if x.flags.writeable else x.copy())


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
