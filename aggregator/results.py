"""What a phase makes of its accepted updates: the scaling, the first model, the mean. Reads the spool, writes files.

Pure in its inputs: the same files and weights give the same bytes, so that it may be done again after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from floe import weights
from floe.aggregate import ONE_VOICE, Made, next_model
from floe.errors import DataError, Refused
from floe.kept import keep
from floe.mean import Update, linear_combination
from floe.personal import is_personal
from floe.plan import Plan
from floe.scaling import scale_of
from floe.schema import Schema
from floe.soundness import least_updates


@dataclass(frozen=True)
class Spooled:
    """An accepted update with weights: its file, and the rows it was trained on.

    `behind` rounds ago its round was open; then `base` is the model that it was trained from. `transfer` brought it.
    """

    device: str
    path: Path
    samples: int
    behind: int = 0
    base: Path | None = None
    transfer: str = ""


def combine_sums(spooled: Sequence[Spooled], out: Path) -> None:
    """Mean and standard deviation of every feature over all rows of all devices, as `scaling.mean` and `.scale`.

    Counts, means and M2 (sums of squared deviations) are merged pairwise (Chan, Golub & LeVeque 1983, eq. 2.1), in the
    order given. float64, of the shape of one example. A constant feature gets scale 1.
    """
    count, mean, m2 = 0, np.zeros(()), np.zeros(())
    for item in spooled:
        sums = weights.read(item.path)
        n, delta = int(sums["sums.count"][0]), sums["sums.mean"] - mean
        mean = mean + delta * (n / (count + n))
        m2 = m2 + sums["sums.m2"] + delta**2 * (count * n / (count + n))
        count += n
    keep(out, {"scaling.mean": np.asarray(mean), "scaling.scale": scale_of(mean, m2, count)})


def first_model(initial: Path, scaling: Path | None, schema: Schema | None, out: Path) -> str:
    """Global model 0: initial weights, with the scaling and the schema that the federation has; its SHA-256."""
    sources = {initial: _names(initial)} | ({scaling: _names(scaling)} if scaling else {})
    return weights.join(sources, out, {"schema": schema.to_json()} if schema else {})


@dataclass(frozen=True)
class Global:
    """A global model that a round made: its SHA-256, each update's share in it by transfer, that of the memory.

    An update without a share has none that could be told (`floe.aggregate.Made`). `spent`: what the log's round says
    of devices' privacy.
    """

    sha256: str
    shares: Mapping[str, float] = field(default_factory=dict)
    memory: str = ""
    spent: Mapping[str, Any] = field(default_factory=dict)


def global_model(
    plan: Plan, spooled: Sequence[Spooled], base: Path, out: Path, power: float = 0.5, *,
    before: Path | None = None, after: Path | None = None,
) -> Global:  # fmt: skip
    """The next global model, by the plan's rule; without updates the base and its memory again.

    An update that came s rounds late moves the base by what it learned, times (1 + s)^-power (FedBuff: Nguyen et al.
    2022, Algorithm 1 and section 3; there power is 1/2): its weight in a mean stays, its difference shrinks. The rules
    that count updates take one of each device, the newest. `before`, `after`, and what is raised: `next_model`.
    """
    if not spooled and least_updates(plan) == 1:
        return Global(_again(base, out), memory=_again(before, after) if before and after else "")
    counted = list({item.device: item for item in spooled}.values()) if plan.rule in ONE_VOICE else spooled
    rebased = [_rebased(item, base, power) for item in counted]
    try:
        updates = [Update(path, item.samples) for path, item in zip(rebased, counted, strict=True)]
        made = next_model(plan, updates, base, out, before=before, after=after)
    finally:
        for path in {*rebased} - {item.path for item in counted}:
            path.unlink()
    return Global(made.sha256, _shares_of(made, spooled, counted, power), made.memory)


def _shares_of(
    made: Made, spooled: Sequence[Spooled], counted: Sequence[Spooled], power: float
) -> dict[str, float]:  # fmt: skip
    """The share of each update in what the model has learned of them, by transfer, 0 of one that was passed over.

    That of a late one is less; what they are together stays.
    """
    if not made.shares:
        return {}
    late = [(1 + item.behind) ** -power * share for item, share in zip(counted, made.shares, strict=True)]
    whole = sum(made.shares) / sum(late) if any(item.behind for item in counted) and sum(late) else 1.0
    shares = {item.transfer: share * whole for item, share in zip(counted, late, strict=True)}
    return {item.transfer: 0.0 for item in spooled} | shares


def shares_at_once(spooled: Sequence[Spooled], *, mixing: float, power: float) -> dict[str, float]:
    """The share of each update in the model of `merged_at_once`, by transfer; the rest is the base's."""
    shares: dict[str, float] = {}
    for item in spooled:
        share = mixing * (1 + item.behind) ** -power
        shares = {transfer: before * (1 - share) for transfer, before in shares.items()} | {item.transfer: share}
    return shares


def merged_at_once(spooled: Sequence[Spooled], base: Path, out: Path, *, mixing: float, power: float) -> str:
    """The next global model in asynchronous operation: the updates mixed in one after the other; its SHA-256.

    FedAsync (Xie, Koyejo & Gupta 2019, Algorithm 1, polynomial staleness): w <- (1 - a) w + a w_k with
    a = mixing (1 + s)^-power for an update that is s rounds behind. Without updates: the base again.
    """
    metadata = weights.read_layout_of(base).metadata
    before, sha256 = base, ""
    for place, item in enumerate(spooled):
        share = mixing * (1 + item.behind) ** -power
        after = out if item is spooled[-1] else out.with_name(f".{out.name}.mixed{place}")
        sha256 = linear_combination([(before, 1 - share), (item.path, share)], after, item.path, metadata, base)
        if before != base:
            before.unlink()
        before = after
    return sha256 or _again(base, out)


def check_initial(path: Path, plan: Plan) -> weights.Layout:
    """A model that the operator gave to start from. Raises `DataError`."""
    try:
        layout = weights.check_numbers(path)
        if plan.schema == "shared":
            Schema.from_json(layout.metadata.get("schema", "{}"))
        if personal := [t.name for t in layout.tensors if is_personal(t.name, plan.personal)]:
            raise Refused("weights", f"{personal[0]} is personal by the plan, so no global model has it")
    except (OSError, Refused) as error:
        raise DataError(
            f"{path}: cannot be the initial model: {error}; `floe models export` writes such files"
        ) from None
    return layout


def _rebased(item: Spooled, base: Path, power: float) -> Path:
    """A late update as if it had been trained from `base`; one that is not late, as it is."""
    if not item.behind or item.base is None:
        return item.path
    factor, out = (1 + item.behind) ** -power, item.path.with_suffix(".rebased")
    linear_combination([(base, 1.0), (item.path, factor), (item.base, -factor)], out, item.path)
    return out


def _again(path: Path, out: Path) -> str:
    """The same tensors and metadata in another place; the SHA-256 of the file."""
    return weights.join({path: _names(path)}, out, weights.read_layout_of(path).metadata)


def _names(path: Path) -> list[str]:
    return [t.name for t in weights.read_layout_of(path).tensors]
