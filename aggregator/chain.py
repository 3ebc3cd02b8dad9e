"""The chain of models: where it stands after a restart, what an update must fit, how a phase ends.

Owns the files of the aggregator's state (epoch, the spool) and the registry; knows no topic and no message.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from aggregator import mend, results
from aggregator.control import Control
from aggregator.intake import Expectation, trainable
from aggregator.log import Log
from aggregator.making import Making, plan_of
from aggregator.memory import Memory
from aggregator.phases import MEASURING, Policy, first_phase, phase_after, reason_to_stop
from aggregator.privacy import Privacy
from aggregator.progress import read_progress
from aggregator.registry import Model, Registry, base_of
from aggregator.spool import Spool
from aggregator.states import State
from floe import kept, weights
from floe.errors import ConfigError, Refused, StoreError
from floe.files import set_aside, storing, write_atomically
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import Base, Phase
from floe.parcel import Parcel
from floe.plan import Plan
from floe.schema import Schema
from floe.selection import takes_part
from floe.settings import Config, Rounds
from floe.store import present_model


class Chain:
    """The models of one lineage, and the phase that makes the next."""

    def __init__(
        self, config: Config, log: Log, state: Path, identity: Identity, keyring: Keyring, epoch: int = 1
    ) -> None:
        """`epoch`: the roster's, at least; a chain that is below it goes on there, from the model that it has."""
        self._config = config
        self._policy = Policy(config.rounds, config.plan)
        self._log = log
        self._state = state
        self._identity = identity
        self._keyring = keyring
        self._registry = Registry(config.path(config.paths.models), state / "published", self._tell_damaged)
        self._lineage = config.rounds.lineage
        memory = Memory(state / "optimizer", self._tell_damaged)
        self._privacy = Privacy(state, log, self._lineage, memory)
        self._making = Making(config, log, state, self._registry, memory, self._privacy)
        self.spool = Spool(state, config.path(config.paths.models), log, self._lineage)
        self._check_owner()
        self._epoch = self._begin_epoch(epoch)
        text = log.schema(self._lineage, self._epoch)
        self.schema = Schema.from_json(text) if text else None
        self._registry.check_age(self._epoch, log.last_round(self._lineage, self._epoch), log.path)
        self.model: Model | None = None
        self.threshold: float | None = None  # agreed for the present model
        self._layout: weights.Layout | None = None
        self._parcel: Parcel | None = None
        self.take_present()

    def restore(self, now: float, control: Control) -> State:
        """Where the rounds were when the last process ended, without what the disk has damaged since."""
        self._mend()
        last = control.last_round(self._policy.rounds)
        row = self._log.open_phase(self._lineage, self._epoch)
        if row is None:
            return self._between_phases(now, control, last)
        phase = Phase(self._lineage, self._epoch, row["round"], row["task"])
        ended = self._log.ended(phase)
        accepted = frozenset(u["device"] for u in ended if u["outcome"] == "accepted")
        refused = frozenset(u["device"] for u in ended if u["outcome"] == "rejected") - accepted
        expected = frozenset(json.loads(row["expected"]))
        return State(
            phase,
            stage="open",
            last=last,
            held=control.held,
            online=expected,  # until they say otherwise: a restart of ours is no reason to close without them
            expected=expected,
            bar=row["bar"],
            accepted=accepted,
            refused=refused,
            merged=self._merged(phase),
            # A round that all have refused is not waited for again: the plan may have been mended meanwhile.
            deadline=now if expected <= refused else now + _time_left(row, self._policy.rounds),
            plan=plan_of(row),
        )

    def take_present(self) -> None:
        """The present model is what the log says it is: the newest, or an operator's choice. Raises `StoreError`."""
        row = present_model(self._log.db, self._lineage, self._epoch)
        if row is not None and (self.model is None or self.model.sha256 != row["sha256"]):
            self.model = self._registry.load(row, self._identity)
            self._layout = trainable(weights.read_layout_of(self.model.path))
            self.threshold = self._log.threshold(self._lineage, self._epoch, row["round"], row["sha256"])

    def check_model(self, row: Mapping[str, Any]) -> None:
        """Whether a model of the log can be the present one. Raises `Refused`."""
        self._registry.check(row, self._identity)

    def enough(self, closed: Phase, control: Control) -> str:
        """Why no more rounds are needed after a phase; empty if they are."""
        if closed.task not in ("train", *MEASURING):
            return ""
        progress = read_progress(self._log.db, closed, self._policy, control.since)
        return reason_to_stop(progress, self._policy.rounds) or self.spent(control.policy(self._policy).plan)

    def spent(self, plan: Plan) -> str:
        """Why a plan affords no more rounds, in words; empty if it does."""
        return self._privacy.reason_to_stop(plan)

    def selects(self, device: str, phase: Phase) -> bool:
        """Whether a device takes, or took, part in a phase that has been opened."""
        row = self._log.round(phase)
        members = self._config.rounds.members
        return row is not None and takes_part(device, phase, plan_of(row).seed, row["bar"], members)

    def expectation(self, phase: Phase) -> Expectation:
        """What an update of a phase must fit: of the open one, or of an earlier one whose updates are still taken."""
        cap = self._config.security.max_transfer_mb * 1_000_000
        layout = self._layout if phase.task in ("train", *MEASURING) else None
        row = self._log.round(phase)
        base, plan = ((row["base_sha256"] or ""), plan_of(row)) if row else ("", self._config.plan)
        start = self._log.base_of(phase)
        base_file = self._config.path(self._config.paths.models) / start["file"] if start else None
        return Expectation(phase, base, plan, layout, self.schema, cap, base_file)

    def accept_schema(self, schema: Schema | None) -> None:
        """The first accepted update gives the federation its schema; None: each device has its own."""
        if self.schema is None and schema is not None:
            self._log.set_schema(self._lineage, self._epoch, schema.to_json())
            self.schema = schema

    def parcel(self) -> Parcel | None:
        """The transfer of the present model, None while there is none."""
        if self.model is None:
            return None
        if self._parcel is None or self._parcel.core.base != self.model.sha256:
            phase = Phase(self._lineage, self._epoch, self.model.round, "train")
            self._parcel = self._registry.parcel(
                self.model, phase, self._keyring, federation=self._config.federation.name,
                sender=self._identity.name, keep=self._policy.models_held - 1,
                half=self._last_plan().download == "float16",
            )  # fmt: skip
        return self._parcel

    def base(self) -> Base | None:
        return base_of(self.parcel())

    def open(self, state: State) -> None:
        """Record that a phase opens; what an interrupted process left of those that have ended is put away."""
        for left in self.spool.ended():
            self._registry.keep_uploads(left, keep=left.name.endswith("-train"))
        base = self.base()
        sha256, expected = base.sha256 if base else None, sorted(state.expected)
        self._log.open_round(state.phase, sha256, state.plan, state.bar, expected)

    def extend(self, state: State) -> None:
        """Record that an open phase goes on, maybe with more devices."""
        self._log.extend_round(state.phase, state.bar, sorted(state.expected))

    def close(self, phase: Phase, *, up: int, down: int) -> frozenset[str]:
        """Make what the phase makes, then record it and the end of the phase in one transaction.

        The devices whose updates were used. Of a phase that is closed already, because what follows had to be tried
        again, nothing else. Raises `RuleError` where it comes to nothing: then it is void.
        """
        spooled = self.spool.updates(phase)
        devices = frozenset(item.device for item in spooled)
        if not self._log.is_open(phase):
            return devices
        try:
            with storing(self.spool.folder(phase)):
                made = self._making.make(phase, spooled, self.model, self.schema)
        except (Refused, ValueError) as error:
            raise StoreError(f"{self.spool.folder(phase)}: {error}; a restart sets aside what is damaged") from None
        row, model, layout = None, self.model, self._layout
        if made is not None:
            model = Model(phase.round, self._registry.path(phase), made.sha256)
            layout = trainable(weights.read_layout_of(model.path))
            samples = sum(item.samples for item in spooled)
            row = self._registry.row(model, phase, self._identity, devices=len(devices), samples=samples)
        told = made or results.Global("")
        agreed = self._making.agreed(phase) if phase.task == "threshold" else None
        self._log.close_round(
            phase, up=up, down=down, model=row, weights=told.shares, spent=told.spent, threshold=agreed
        )
        self.model, self._layout = model, layout
        if made is not None or agreed is not None:
            self.threshold = agreed
        with suppress(StoreError):  # the round is closed: `open` tries again
            self._registry.keep_uploads(self.spool.folder(phase), keep=phase.task == "train")
        return devices

    def void(self, phase: Phase, fault: str = "") -> str:
        """Record that a phase came to nothing; why, in words. Round 0 begins again in a new epoch.

        With a `fault` in what its updates make, no other phase uses them.
        """
        ended = self._log.ended(phase)
        reasons = sorted({f"{u['reason']}: {u['detail']}" for u in ended if u["outcome"] != "accepted"})
        if phase.round == 0:
            # The epoch comes first: a void phase 0 of the present epoch would be taken for one that has succeeded.
            self._epoch = self._next_epoch(phase.epoch + 1)
            self.schema = None
        carried = phase.task == "train" and bool(self._policy.max_staleness) and not fault
        if carried:
            self.spool.carry_over(phase)
        self._log.void_round(phase, carried=carried)
        return (fault or "; ".join(reasons) or "fewer updates than its quorum")[:500]

    def _between_phases(self, now: float, control: Control, last: int) -> State:
        policy = self._policy
        closed = self._log.last_closed(self._lineage, self._epoch)
        if closed is None or closed.round == 0:
            self._check_budget(control)
        if closed is None:
            self._adopt_initial()
            number = self.model.round if self.model else None
            scaled = self._making.is_scaled(self._epoch)
            phase = first_phase(self._lineage, self._epoch, policy, model=number, scaled=scaled)
            needed = 1 if control.starts(phase) else policy.rounds.devices
            return State(phase, needed, last=last, held=control.held, not_before=now)
        enough = self.enough(closed, control)
        following = phase_after(closed, policy, last=last, has_model=self.model is not None, enough=enough)
        if following is None:
            return State(closed, stage="finished", last=closed.round, held=control.held)
        row, started = self._log.round(closed), control.starts(following)
        unheard = frozenset(json.loads(row["expected"])) if row and not started else frozenset()
        return State(
            following, 1 if started else max(policy.rounds.quorum, 1), last=last, held=control.held, unheard=unheard,
            not_before=now + (0.0 if started else policy.rounds.pause_s), merged=self._merged(following),
        )  # fmt: skip

    def _check_budget(self, control: Control) -> None:
        if spent := self.spent(control.policy(self._policy).plan):
            raise ConfigError(f"no round can open: {spent} by earlier epochs; raise [plan] epsilon, or end here")

    def _merged(self, phase: Phase) -> int:
        return sum(row["round"] != phase.round for row in self._log.merged(phase))

    def _mend(self) -> None:
        row, last = self._log.open_phase(self._lineage, self._epoch), self._log.last_closed(self._lineage, self._epoch)
        scaling = self._making.scaling(self._epoch)
        scales = self.model is None and last is not None and last.task == "sums"
        if scales and self._config.plan.scaling == "standard" and (fault := kept.fault_of(scaling)):
            aside = f"; set aside as {set_aside(scaling).name}" if os.path.lexists(scaling) else ""
            self._tell_damaged(f"{scaling}: {fault}{aside}: the sums are gathered again, in a new epoch")
            self.void(Phase(self._lineage, self._epoch, 0, row["task"] if row else "sums"))
            return
        self.spool.mend(self._epoch)

    def _tell_damaged(self, text: str) -> None:
        self._log.event("error", "damaged", text)

    def _adopt_initial(self) -> None:
        """The operator's model becomes global model 0, unless its scaling has still to be gathered."""
        if not self._config.rounds.initial or self.model is not None:
            return
        given = self._config.path(self._config.rounds.initial)
        layout = results.check_initial(given, self._config.plan)
        if self._config.plan.schema == "shared":
            self.accept_schema(Schema.from_json(layout.metadata["schema"]))
        if self._config.plan.scaling == "standard" and layout == trainable(layout):
            return
        phase = Phase(self._lineage, self._epoch, 0, "init")
        out = self._registry.path(phase)
        sha256 = results.first_model(given, None, self.schema, out)
        self.model = self._making.as_published(phase, out, sha256)
        self._layout = trainable(weights.read_layout_of(out))
        self._log.add_model(self._registry.row(self.model, phase, self._identity, devices=0, samples=0))

    def _last_plan(self) -> Plan:
        """The plan of the phase that closed last; before any, what is configured."""
        closed = self._log.last_closed(self._lineage, self._epoch)
        row = self._log.round(closed) if closed else None
        return plan_of(row) if row else self._config.plan

    def _check_owner(self) -> None:
        for owner in self._log.owners():
            if owner != (self._config.federation.name, self._lineage):
                raise ConfigError(
                    f"{self._log.path} belongs to lineage {owner[1]!r} of federation {owner[0]!r}: "
                    "choose other folders for this one ([paths] log, models, state)"
                )

    def _begin_epoch(self, least: int) -> int:
        # A log that was lost begins a new epoch: devices remember what they did in the old one.
        known = self._log.known_epoch(self._lineage)
        remembered = mend.kept_epoch(self._state / "epoch", known, self._tell_damaged)
        if known is None and remembered:
            self._tell_damaged(f"the log of epoch {remembered} is gone: a new one begins, in epoch {remembered + 1}")
        epoch = known if known is not None else remembered + 1
        if known is not None and known < least:
            self._carry_over(known, least)
        return self._next_epoch(max(epoch, least))

    def _carry_over(self, old: int, new: int) -> None:
        """The present model and the schema of an epoch are the next one's first; its rounds are counted on."""
        row = present_model(self._log.db, self._lineage, old)
        if row is not None:
            newest = self._log.newest_model(self._lineage, old)
            model = replace(self._registry.load(row, self._identity), round=newest)
            phase = Phase(self._lineage, new, model.round, "train")
            counts = {"devices": row["devices"], "samples": row["samples"]}
            row = self._registry.row(model, phase, self._identity, **counts)
        schema = self._log.schema(self._lineage, old)
        self._log.renew(self._config.federation.name, self._lineage, new, self._keyring.suite, schema, row)
        self._log.event("info", "epoch", f"epoch {new}, as the roster says: goes on from epoch {old}")

    def _next_epoch(self, epoch: int) -> int:
        write_atomically(self._state / "epoch", str(epoch).encode())
        self._log.federation(self._config.federation.name, self._lineage, epoch, self._keyring.suite)
        return epoch


def _time_left(row: Mapping[str, Any], rounds: Rounds) -> float:
    """Seconds to the deadline of a round that was open before; as many as the grace for devices to come back."""
    return max(rounds.deadline_s - (row["seconds"] or 0.0), min(rounds.grace_s, rounds.deadline_s))
