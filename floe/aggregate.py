"""From the updates of a round to the next global model, by the rule that its plan names (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from floe import adaptive, robust, weights
from floe.errors import Refused, RuleError
from floe.mean import Update, counts_of, weighted_mean
from floe.plan import Plan
from floe.soundness import least_updates

ONE_VOICE = ("median", "trimmed-mean", "krum", "multi-krum", "norm-clipping")  # rules that count updates, not rows


@dataclass(frozen=True)
class Made:
    """A model that was made: its SHA-256, the share of each update in it, the SHA-256 of the optimizer's memory.

    A share is of what moves the base, in the order of the updates: n_k / n of a mean; c_k / n where norms are clipped;
    of Krum 1 for the chosen, of Multi-Krum one in `keep`, 0 for the others. `shares` is empty for median and
    trimmed mean, where each number of the model comes from other updates; `memory` is, for rules without one.
    """

    sha256: str
    shares: tuple[float, ...] = ()
    memory: str = ""


def next_model(
    plan: Plan,
    updates: Sequence[Update],
    base: Path,
    out: Path,
    *,
    before: Path | None = None,
    after: Path | None = None,
) -> Made:
    """Write the next global model to `out`: of one or more updates, all trained from `base` or rebased to it.

    Tensors that the updates lack (the scaling) and the metadata are the base's. The same files in the same order give
    the same bytes. `before` and `after` are files for the memory of the rules in `adaptive.RULES`, which need `after`;
    `before` is the one that came with the base, None where it begins at zero.

    Raises `RuleError` if the model has numbers that are not finite or too large: then neither `out` nor `after` is
    there; and for fewer updates than the rule needs. `ValueError` for updates that are not alike; `StoreError`.
    """
    if len(updates) < (least := least_updates(plan)):
        raise RuleError(f'rule "{plan.rule}" makes no model: it needs {least} updates, and {len(updates)} have weights')
    told = "an update is too large, which the rules median, trimmed-mean, krum and multi-krum stand"
    with finite(f'rule "{plan.rule}"', told, out, after):
        return _made(plan, updates, base, out, before, after)


@contextmanager
def finite(maker: str, told: str, out: Path, *beside: Path | None) -> Iterator[None]:
    """The block writes a model to `out`. Raises `RuleError` if its numbers are not finite or too large: then neither
    it nor what is `beside` it is there. `told`: why that may be.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        yield
    try:
        weights.check_numbers(out)
    except Refused as refusal:
        for path in filter(None, (out, *beside)):
            path.unlink(missing_ok=True)
        raise RuleError(f"{maker} makes no model: {refusal.detail}; {told}") from None


def _made(
    plan: Plan, updates: Sequence[Update], base: Path, out: Path, before: Path | None, after: Path | None
) -> Made:
    counts = counts_of(updates)
    shares = tuple((counts / counts.sum()).tolist())
    if plan.rule in adaptive.RULES:
        if after is None:
            raise ValueError(f'rule "{plan.rule}" needs a place for its memory')
        return _remembering(plan, updates, base, out, before, after, shares)
    if plan.rule in ("krum", "multi-krum"):
        keep = 1 if plan.rule == "krum" else plan.keep or len(updates) - plan.byzantine
        sha256, chosen = robust.krum(updates, base, out, plan.byzantine, keep)
        return Made(sha256, tuple(1 / keep if k in chosen else 0.0 for k in range(len(updates))))
    if plan.rule == "norm-clipping":
        sha256, factors = robust.clipped_mean(updates, base, out, plan.clip_norm)
        return Made(sha256, tuple(factor / len(factors) for factor in factors))
    if plan.rule == "median":
        return Made(robust.median(updates, base, out))
    if plan.rule == "trimmed-mean":
        return Made(robust.trimmed_mean(updates, base, out, plan.byzantine))
    return Made(weighted_mean(updates, out, weights.read_layout_of(base).metadata, base), shares)


def _remembering(
    plan: Plan, updates: Sequence[Update], base: Path, out: Path, before: Path | None, after: Path,
    shares: tuple[float, ...],
) -> Made:  # fmt: skip
    sha256, memory = adaptive.next_step(plan, updates, base, out, before, after)
    return Made(sha256, shares, memory)
