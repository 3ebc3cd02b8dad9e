"""DP-SGD by Opacus: every row's gradient cut, noise on their sum (Abadi et al. 2016, Algorithm 1). Imports torch.

The rows of a step are drawn by Poisson sampling, each with the probability batch / rows, and the sum is divided by the
batch that is expected. Sampling and noise come from numpy's Philox with a key of 128 bits, made from the device's own:
whoever knows that, and nobody else, can draw them again. (torch's generator heeds 32 bits of its seed: they are tried
out in hours.) Philox is no cryptographic generator, and the noise has the precision of float32 (Mironov 2012).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from edge_client.interrupted import Interrupted
from edge_client.models import Model
from edge_client.optimise import check_finite, new_optimizer
from edge_client.privacy import Terms
from floe.errors import ConfigError, DataError
from floe.plan import Plan

GRADIENTS = 32 * 1024 * 1024  # numbers of single rows' gradients in memory at a time: 128 MiB


def check_private(model: Model) -> None:
    """Whether a model's rows can be told apart while it trains. Raises `ConfigError`, which names the layer."""
    for name, layer in model.module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f'model {model.name}: layer {name!r} is {type(layer).__name__}, which mixes the rows of a batch; '
                'plan.privacy = "example" needs rows apart: use GroupNorm in its place'
            )  # fmt: skip
        if type(layer) in ModuleValidator.VALIDATORS and (faults := ModuleValidator.VALIDATORS[type(layer)](layer)):
            raise ConfigError(f'model {model.name}: layer {name!r}: plan.privacy = "example": {faults[0]}')
    if faults := GradSampleModule.validate(model.module):
        raise ConfigError(f'model {model.name}: plan.privacy = "example": {faults[0]}')


def optimise_privately(
    model: Model, x: Tensor, target: Tensor, plan: Plan, terms: Terms, stop: Callable[[], bool]
) -> None:
    """Train `model` in place, as `edge_client.optimise.optimise` does, by the terms.

    FedProx' pull is added after the noise: it depends on weights alone. Raises `Interrupted` between two batches,
    `DataError` where weights are not finite, and for a buffer that rows have changed past the noise.
    """
    drawn = np.random.Generator(np.random.Philox(key=int.from_bytes(terms.key, "big")))
    buffers = {name: buffer.clone() for name, buffer in model.module.named_buffers()}
    start = [parameter.detach().clone() for parameter in model.module.parameters()]
    model.module.train()
    wrapped = GradSampleModule(model.module, loss_reduction="sum")
    with _unwrapping(wrapped):
        private = replace(model, module=wrapped)
        optimizer = _Noised(model.module, plan, terms, drawn)
        if plan.mu:
            optimizer.attach_step_hook(lambda _: _pull(model.module, start, plan.mu))
        for _ in range(terms.spent.steps):
            rows = torch.from_numpy(np.flatnonzero(drawn.random(len(x)) < terms.spent.rate))
            for part, last in _parts(rows, max(1, GRADIENTS // sum(one.numel() for one in start))):
                if stop():
                    raise Interrupted
                _step(private, optimizer, x[part], target[part], last=last)
    check_finite(model, plan)
    _check_buffers(model, buffers)


@contextmanager
def _unwrapping(wrapped: GradSampleModule) -> Iterator[None]:
    """The module is as it was when the block ends. Torch warns of what is as it should be: the first layer's inputs
    need no gradient, and gradients of single rows are laid out in another way than weights.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        try:
            yield
        finally:
            wrapped.to_standard_module()


class _Noised(DPOptimizer):  # type: ignore[misc]
    """Opacus cuts and sums gradients, and adds none of its own noise; that of the terms is added here."""

    def __init__(self, module: nn.Module, plan: Plan, terms: Terms, drawn: np.random.Generator) -> None:
        super().__init__(
            new_optimizer(module, plan), noise_multiplier=0.0, max_grad_norm=plan.max_grad_norm,
            expected_batch_size=terms.batch,
        )  # fmt: skip
        self._deviation = terms.spent.noise * plan.max_grad_norm
        self._drawn = drawn

    def add_noise(self) -> None:
        """The sum of the cut gradients, with noise, is each parameter's gradient."""
        super().add_noise()
        for parameter in self.params:
            noise = self._deviation * self._drawn.standard_normal(parameter.shape)
            parameter.grad.add_(torch.from_numpy(np.asarray(noise)).to(parameter.grad))


def _parts(rows: Tensor, size: int) -> Iterator[tuple[Tensor, bool]]:
    """The rows of a step in parts that memory holds, and whether a part is the last; one, if no row was drawn."""
    parts = torch.split(rows, size) if len(rows) else (rows,)
    return ((part, part is parts[-1]) for part in parts)


def _step(model: Model, optimizer: DPOptimizer, x: Tensor, target: Tensor, *, last: bool) -> None:
    optimizer.zero_grad()
    if len(x):
        _loss(model, model.outputs(x), target).backward()  # type: ignore[no-untyped-call]
    else:  # nothing but noise: many layers refuse a batch of no rows
        for parameter in optimizer.params:
            parameter.grad_sample = torch.zeros(0, *parameter.shape)
    optimizer.signal_skip_step(do_skip=not last)
    optimizer.step()


def _loss(model: Model, outputs: Tensor, target: Tensor) -> Tensor:
    """The sum over rows: of the mean squared error of each, or of its cross-entropy."""
    if model.objective == "reconstruction":
        return (outputs - target).square().flatten(1).mean(1).sum()
    return nn.functional.cross_entropy(outputs, target, reduction="sum")


def _pull(module: nn.Module, start: list[Tensor], mu: float) -> None:
    for parameter, origin in zip(module.parameters(), start, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=mu)


def _check_buffers(model: Model, before: dict[str, Tensor]) -> None:
    for name, buffer in model.module.named_buffers():
        if not torch.equal(buffer, before[name]):
            raise DataError(f"model {model.name}: training has changed the buffer {name!r}, which has no noise on it")
