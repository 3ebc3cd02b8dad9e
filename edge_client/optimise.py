"""Local training: epochs of SGD or Adam over one device's rows, FedProx' term included. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from edge_client.interrupted import Interrupted
from edge_client.models import Model
from floe.errors import DataError
from floe.plan import Plan

Loss = Callable[[Tensor, Tensor], Tensor]


def optimise(
    model: Model, x: Tensor, target: Tensor, plan: Plan, generator: torch.Generator, stop: Callable[[], bool]
) -> float:
    """Train `model` in place for `plan.epochs`; returns the mean loss over the rows of the last epoch.

    `target` are the labels (int64, cross-entropy) or the rows themselves (mean squared error). The optimizer starts
    afresh; `generator` shuffles. Raises `Interrupted` between two batches, `DataError` when the loss is not finite.
    """
    loss_of: Loss = nn.functional.mse_loss if model.objective == "reconstruction" else nn.functional.cross_entropy
    optimizer = new_optimizer(model.module, plan)
    start = [parameter.detach().clone() for parameter in model.module.parameters()] if plan.mu else []
    model.module.train()
    loss = 0.0
    for epoch in range(plan.epochs):
        loss = 0.0
        for index in batches(len(x), plan.batch_size, generator):
            if stop():
                raise Interrupted
            loss += _step(model, x[index], target[index], loss_of, optimizer, start, plan.mu) * len(index) / len(x)
            if not math.isfinite(loss):
                raise _diverged(model, plan, f"the loss is {loss} in epoch {epoch + 1}")
    check_finite(model, plan)
    return loss


def check_finite(model: Model, plan: Plan) -> None:
    """Raises `DataError` if a weight is no number any more."""
    if not all(tensor.isfinite().all() for tensor in model.module.state_dict().values()):
        raise _diverged(model, plan, "weights are not finite")


def new_optimizer(module: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """The plan's optimizer, fresh, over what can be trained."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if plan.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    return torch.optim.SGD(parameters, lr=plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay)


def batches(rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """All rows once in a random order, in as few batches of at most `batch_size` as it takes; 0 means one batch.

    The batches are as even as can be: a last batch of one row would be noise, and BatchNorm refuses it.
    """
    order = torch.randperm(rows, generator=generator)
    return iter(order.tensor_split(math.ceil(rows / (batch_size or rows))))


def _step(
    model: Model,
    x: Tensor,
    target: Tensor,
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    start: list[Tensor],
    mu: float,
) -> float:
    optimizer.zero_grad()
    loss = loss_of(model.outputs(x), target)
    loss.backward()  # type: ignore[no-untyped-call]
    # The gradient of mu/2 ||w - w_global||^2 (Li et al. 2020, section 4): nothing where mu, and so `start`, is empty.
    for parameter, origin in zip(model.module.parameters(), start, strict=False):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=mu)
    optimizer.step()
    return loss.item()


def _diverged(model: Model, plan: Plan, what: str) -> DataError:
    return DataError(f"training {model.name} diverged: {what}; lower plan.learning_rate, now {plan.learning_rate:g}")
