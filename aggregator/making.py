"""What a phase makes of its accepted updates, by the plan of its round: the scaling, a model, a threshold.

`aggregator.results` says what the model is; here stand the files that it is made from and with: the scaling of an
epoch, what optimizers remember, the account of privacy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from aggregator import results
from aggregator.log import Log
from aggregator.memory import Memory
from aggregator.phases import Policy
from aggregator.privacy import Privacy
from aggregator.registry import Model, Registry
from floe import adaptive, threshold
from floe.encode import round_model
from floe.messages import Phase
from floe.plan import Plan
from floe.schema import Schema
from floe.settings import Config


class Making:
    """The work of one lineage's phases on their updates."""

    def __init__(
        self, config: Config, log: Log, state: Path, registry: Registry, memory: Memory, privacy: Privacy
    ) -> None:
        self._config = config
        self._policy = Policy(config.rounds, config.plan)
        self._log = log
        self._state = state
        self._registry = registry
        self._memory = memory
        self._privacy = privacy

    def scaling(self, epoch: int) -> Path:
        """Where the mean and the deviation that an epoch's sums came to are kept."""
        return self._state / f"scaling-{epoch}.safetensors"

    def is_scaled(self, epoch: int) -> bool:
        """Whether an epoch has a scaling, where the plan asks for one."""
        return self._config.plan.scaling == "standard" and self.scaling(epoch).exists()

    def make(
        self, phase: Phase, spooled: Sequence[results.Spooled], base: Model | None, schema: Schema | None
    ) -> results.Global | None:
        """The model, written to its place, if the phase makes one; `base` is the present one.

        Raises `RuleError` where it comes to nothing, `Refused` and `ValueError` where the spool is damaged,
        `KeyFileError`, `StoreError`.
        """
        out, scaling = self._registry.path(phase), self.scaling(phase.epoch)
        initial = self._config.rounds.initial
        if phase.task == "sums":
            results.combine_sums(sorted(spooled, key=lambda item: item.device), scaling)
            if not initial:
                return None
            sha256 = results.first_model(self._config.path(initial), scaling, schema, out)
        elif phase.task == "init":
            sha256 = results.first_model(spooled[0].path, scaling if self.is_scaled(phase.epoch) else None, schema, out)
        elif phase.task == "train" and base is not None:
            return self._train(phase, spooled, base, out)
        else:
            return None
        return results.Global(self.as_published(phase, out, sha256).sha256)

    def agreed(self, phase: Phase) -> float:
        """The threshold that the accepted histograms of a phase come to."""
        return threshold.quantile(threshold.merged(self._log.histograms(phase)), self._plan(phase).threshold_quantile)

    def as_published(self, phase: Phase, out: Path, sha256: str) -> Model:
        """The model that a phase has made, rounded to what its transfer carries: the base of all that comes."""
        plan = self._plan(phase)
        if plan.download == "float16":
            sha256 = round_model(out, seed=plan.seed, round=phase.round)
        return Model(phase.round, out, sha256)

    def _train(self, phase: Phase, spooled: Sequence[results.Spooled], base: Model, out: Path) -> results.Global:
        rounds = self._policy.rounds
        mixing, power = rounds.mixing, rounds.staleness_power
        if self._policy.asynchronous:
            sha256 = results.merged_at_once(spooled, base.path, out, mixing=mixing, power=power)
            shares = results.shares_at_once(spooled, mixing=mixing, power=power)
            return results.Global(self.as_published(phase, out, sha256).sha256, shares)
        plan = self._plan(phase)
        by_device = sorted(spooled, key=lambda item: (item.device, -item.behind))
        if plan.privacy == "device" and spooled:
            made = self._privacy.make(phase, plan, by_device, base, out)
        else:
            before = self._remembered(plan, base) if plan.rule in adaptive.RULES else None
            made = results.global_model(
                plan, by_device, base.path, out, power, before=before, after=self._memory.next
            )  # fmt: skip
        model = self.as_published(phase, out, made.sha256)
        if made.memory:
            self._memory.keep(base, model, made.memory)
        return replace(made, sha256=model.sha256)

    def _remembered(self, plan: Plan, base: Model) -> Path | None:
        memory = self._memory.of(base, plan.rule)
        if memory is None:
            text = f"{plan.rule} begins at zero: model {base.round} ({base.sha256[:12]}) came with no memory of it"
            self._log.event("info", "optimizer", text)
        return memory

    def _plan(self, phase: Phase) -> Plan:
        """The plan that a phase was opened with; of one that never was, as a first model, what is configured."""
        row = self._log.round(phase)
        return plan_of(row) if row else self._config.plan


def plan_of(row: Mapping[str, Any]) -> Plan:
    """The plan that a round was opened with."""
    return msgspec.json.decode(row["plan"], type=Plan)
