"""Models as a user would write them, good and bad; named by the tests as "own:function"."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from floe.plan import Plan

NOT_A_FUNCTION = 3


def good(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(shape[0], 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, classes)
    )


def reconstructs(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    module = nn.Linear(shape[0], shape[0])
    module.objective = "reconstruction"  # type: ignore[assignment]
    return module


def wrong_objective(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    module = nn.Linear(shape[0], classes)
    module.objective = "regression"  # type: ignore[assignment]
    return module


def not_a_module(shape: tuple[int, ...], classes: int, plan: Plan) -> Any:
    return {"weights": 3}


def raises(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    raise ValueError("no such layer")


def wrong_outputs(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    return nn.Linear(shape[0], classes + 1)


def wrong_inputs(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    return nn.Linear(shape[0] + 1, classes)


def half_precision(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    class Module(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.bfloat16())

    return Module(shape[0], classes).to(torch.bfloat16)


class FailsInTraining(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("only made for show")
        return super().forward(x)


def fails_in_training(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    return FailsInTraining(shape[0], classes)


def normed(shape: tuple[int, ...], classes: int, plan: Plan) -> nn.Module:
    """A classifier with batch normalisation, as FedBN keeps it at home."""
    layers = {"dense": nn.Linear(shape[0], 4), "bn": nn.BatchNorm1d(4), "out": nn.Linear(4, classes)}
    return nn.Sequential(OrderedDict(layers))
