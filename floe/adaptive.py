"""Optimizers of the aggregator: the mean difference of a round's updates is a step's gradient, with a memory.

FedAvgM (Hsu, Qi & Brown 2019, section 4): v <- beta v + delta, w <- w + eta v. FedAdagrad, FedYogi, FedAdam (Reddi et
al. 2021, Algorithm 2): m <- beta1 m + (1 - beta1) delta, v by the rule, w <- w + eta m / (sqrt(v) + tau); v begins at
tau^2, nothing is corrected for bias. delta is weighted by rows. All in float64; only w is rounded to its dtype.

The memory is a file: of each float tensor its moments in float64, number by number (m and v side by side).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from floe import weights
from floe.differences import Differences
from floe.mean import PIECE, Real, Update, copied, counts_of, means
from floe.plan import Plan

RULES = ("fedavgm", "fedadam", "fedyogi", "fedadagrad")
RULE = "rule"  # in the metadata of a memory: by which rule it was made


def next_step(
    plan: Plan, updates: Sequence[Update], base: Path, out: Path, before: Path | None, after: Path
) -> tuple[str, str]:
    """Write the memory after this step to `after`, then the model to `out`; the SHA-256 of the model, of the memory.

    `before` is the memory that belongs to the base; None: it begins at zero. Integer tensors are FedAvg's, and those
    that the updates lack the base's. Raises `ValueError` for updates that are not alike, `StoreError`.
    """
    counts, differences = counts_of(updates), Differences(updates, base)
    moments = {t.name: (_moments_of(t, plan), _moved(plan, differences, counts, t, before)) for t in differences.floats}
    memory = weights.compose(moments, after, {RULE: plan.rule})
    parts = copied(base) | {t.name: (t, means(updates, counts, t)) for t in differences.layout.tensors}
    parts |= {t.name: (t, differences.moved(t, _steps(plan, after, t))) for t in differences.floats}
    return weights.compose(parts, out, weights.read_layout_of(base).metadata), memory


def _columns(plan: Plan) -> int:
    return 1 if plan.rule == "fedavgm" else 2


def _moments_of(tensor: weights.Tensor, plan: Plan) -> weights.Tensor:
    shape, dtype = (tensor.elements, _columns(plan)), weights.DTYPES["F64"]
    return weights.Tensor(tensor.name, dtype, shape, 0, tensor.elements * _columns(plan) * dtype.itemsize)


def _moved(
    plan: Plan, differences: Differences, counts: Real, tensor: weights.Tensor, before: Path | None
) -> Iterator[weights.AnyArray]:
    total, old = counts.sum(), _remembered(plan, before, tensor)
    for summed in differences.sums(tensor, counts.tolist()):
        yield np.stack(_after(plan, next(old), summed / total), axis=1).reshape(-1)


def _remembered(plan: Plan, memory: Path | None, tensor: weights.Tensor) -> Iterator[Real]:
    """The moments of a tensor in pieces, each a column; without a memory those that it begins with."""
    columns = _columns(plan)
    found = {t.name: t for t in weights.read_layout_of(memory).tensors} if memory else {}
    for at in range(0, tensor.elements, PIECE):
        if memory is not None:
            yield weights.read_piece(memory, found[tensor.name], at * columns, PIECE * columns).reshape(-1, columns).T
        else:
            begins = np.zeros((columns, min(PIECE, tensor.elements - at)), np.float64)
            begins[1:] = plan.server_tau**2
            yield begins


def _after(plan: Plan, old: Real, delta: Real) -> list[Real]:
    beta1, beta2 = plan.server_momentum, plan.server_beta2
    if plan.rule == "fedavgm":
        return [beta1 * old[0] + delta]
    m, v, squared = beta1 * old[0] + (1 - beta1) * delta, old[1], np.square(delta)
    if plan.rule == "fedadagrad":
        return [m, v + squared]
    if plan.rule == "fedyogi":
        return [m, v - (1 - beta2) * squared * np.sign(v - squared)]
    return [m, beta2 * v + (1 - beta2) * squared]


def _steps(plan: Plan, memory: Path, tensor: weights.Tensor) -> Iterator[Real]:
    for moments in _remembered(plan, memory, tensor):
        if plan.rule == "fedavgm":
            yield plan.server_learning_rate * moments[0]
        else:
            yield plan.server_learning_rate * moments[0] / (np.sqrt(moments[1]) + plan.server_tau)
