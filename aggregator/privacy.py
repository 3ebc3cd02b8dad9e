"""Rounds of a plan with privacy = "device": the key of their noise, the norm that updates are cut to, the budget.

The account is the log's: of every closed round that cut updates, in all epochs of the lineage, the plan has the noise.
The key is `<state>/privacy/noise.key`; with another the noise is another, and nothing else.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from aggregator.log import Log
from aggregator.memory import Memory
from aggregator.registry import Model
from aggregator.results import Global, Spooled
from floe import adaptive, weights
from floe.accounting import ACCOUNTANT, noise_of, spent_with, together
from floe.errors import KeyFileError, RuleError
from floe.files import hash_of
from floe.identity import check_folder, present, read_private, write_private
from floe.mean import Update
from floe.messages import Phase
from floe.noised import Noise, noised_mean
from floe.plan import Plan

KEY = Path("privacy", "noise.key")  # in the state folder
NORM = "device-privacy"  # the rule whose memory the norm is


class Privacy:
    """The private rounds of one lineage."""

    def __init__(self, state: Path, log: Log, lineage: str, memory: Memory) -> None:
        self._path = state / KEY
        self._log = log
        self._lineage = lineage
        self._memory = memory

    def reason_to_stop(self, plan: Plan) -> str:
        """Why no more rounds of a plan may open, in words; empty if one may."""
        return spent_with(plan, self._before())[1] if plan.privacy == "device" else ""

    def make(self, phase: Phase, plan: Plan, spooled: Sequence[Spooled], base: Model, out: Path) -> Global:
        """The next global model, of one update of each device, with noise; every one has the same share.

        The same updates give the same bytes. Raises `RuleError` where the budget is spent, `KeyFileError`.
        """
        epsilon, over = spent_with(plan, self._before())
        if over:
            raise RuleError(over)
        counted = list({item.device: item for item in spooled}.values())
        updates = [Update(item.path, 1.0) for item in counted]
        noise = Noise(noise_of(plan), self._secret(phase, base, counted))
        norm = self._norm(plan, base)
        sha256, following = noised_mean(updates, base.path, out, norm, noise, plan.clip_quantile)
        memory = ""
        if plan.clip_quantile:
            weights.write(self._memory.next, {"norm": np.array([following])}, {adaptive.RULE: NORM})
            memory = hash_of(self._memory.next)
        spent = {"epsilon": epsilon, "delta": plan.delta, "accountant": ACCOUNTANT, "clip_norm": norm}
        shares = {item.transfer: 0.0 for item in spooled} | {item.transfer: 1 / len(counted) for item in counted}
        return Global(sha256, shares, memory, spent)

    def _before(self) -> list[float]:
        plans = self._log.private_plans(self._lineage)
        return [together(noise_of(msgspec.json.decode(plan, type=Plan)), rounds) for plan, rounds in plans]

    def _norm(self, plan: Plan, base: Model) -> float:
        if not plan.clip_quantile:
            return plan.clip_norm
        memory = self._memory.of(base, NORM)
        if memory is not None:
            return float(weights.read(memory)["norm"][0])
        text = f"clip_norm begins at {plan.clip_norm:g}: model {base.round} ({base.sha256[:12]}) came with none"
        self._log.event("info", "optimizer", text)
        return plan.clip_norm

    def _secret(self, phase: Phase, base: Model, counted: Sequence[Spooled]) -> bytes:
        """Others for every set of updates: two models of one round with the same noise would tell their difference."""
        about = [self._key().hex(), str(phase.epoch), str(phase.round), base.sha256, *(one.transfer for one in counted)]
        return hashlib.sha256("\n".join(about).encode()).digest()

    def _key(self) -> bytes:
        check_folder(self._path.parent)
        if not present(self._path):
            write_private(self._path, secrets.token_bytes(32))
        return read_key(self._path)


def read_key(path: Path) -> bytes:
    """The key of the noise. Raises `KeyFileError`."""
    key = read_private(path)
    if len(key) != 32:
        raise KeyFileError(f"{path}: {len(key)} bytes, 32 are needed; remove it, and a new one is made")
    return key
