"""The chain of models: where it stands after a restart, what an update must fit, what a round makes of its updates.

Owns the files of the aggregator's state (spool, scaling, epoch) and the registry; knows no topic and no message.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import msgspec

from aggregator import results
from aggregator.intake import Expectation, trainable
from aggregator.log import Log
from aggregator.registry import Model, Registry, base_of
from aggregator.rounds import Policy, State, first_phase, phase_after
from floe import weights
from floe.errors import ConfigError, Refused, StoreError
from floe.files import hash_of, storing, write_atomically
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import Base, Message, Phase
from floe.parcel import Parcel
from floe.plan import Plan
from floe.schema import Schema
from floe.selection import takes_part
from floe.settings import Config


class Chain:
    """The models of one lineage, and the phase that makes the next."""

    def __init__(self, config: Config, log: Log, state: Path, identity: Identity, keyring: Keyring) -> None:
        self._config = config
        self._log = log
        self._state = state
        self._identity = identity
        self._keyring = keyring
        self._registry = Registry(config.path(config.paths.models), state / "published")
        self._lineage = config.rounds.lineage
        self._check_owner()
        self._epoch = self._begin_epoch()
        text = log.schema(self._lineage, self._epoch)
        self.schema = Schema.from_json(text) if text else None
        self.model = self._newest_model()
        self._layout = self._read_layout()
        self._parcel: Parcel | None = None
        self.plan = config.plan

    def restore(self, policy: Policy, now: float) -> State:
        """Where the rounds were when the last process ended."""
        row = self._log.open_phase(self._lineage, self._epoch)
        if row is None:
            last = self._log.last_closed(self._lineage, self._epoch)
            if last is None:
                return self._at_the_beginning(policy)
            following = phase_after(last, policy, has_model=self.model is not None)
            if following is None:
                return State(last, stage="finished")
            return State(following, max(policy.rounds.quorum, 1))
        phase = Phase(self._lineage, self._epoch, row["round"], row["task"])
        ended = self._log.ended(phase)
        accepted = frozenset(u["device"] for u in ended if u["outcome"] == "accepted")
        refused = frozenset(u["device"] for u in ended if u["outcome"] == "rejected") - accepted
        return State(
            phase,
            stage="open",
            expected=frozenset(json.loads(row["expected"])),
            bar=row["bar"],
            accepted=accepted,
            refused=refused,
            # A round that all have refused is not waited for again: the plan may have been mended meanwhile.
            deadline=now if refused and not accepted else now + policy.rounds.deadline_s,
        )

    def selects(self, device: str, state: State) -> bool:
        """Whether a device that came later may take part in the open phase."""
        return takes_part(device, state.phase, self.plan.seed, state.bar, self._config.rounds.members)

    def check_key(self, message: Message) -> None:
        """The key that speaks for a device is the first that was seen under its name, with proof that it belongs here.

        Raises `Refused("unknown-key", ...)`.
        """
        pinned = self._log.key_of(message.sender)
        if pinned is None:
            if not self._keyring.proves(message):
                raise Refused("unknown-key", f"{message.sender!r} does not prove that it knows our secret.key")
            self._log.pin(message.sender, message.key)
        elif pinned != message.key:
            raise Refused("unknown-key", f"another key was seen first under the name {message.sender!r}")

    def expectation(self, phase: Phase) -> Expectation:
        """What an update of this phase must fit."""
        base, cap = self.base(), self._config.security.max_transfer_mb * 1_000_000
        layout = self._layout if phase.task in ("train", "evaluate") else None
        return Expectation(phase, base.sha256 if base else "", self.plan, layout, self.schema, cap)

    def accept_schema(self, schema: Schema) -> None:
        """The first accepted update gives the federation its schema."""
        if self.schema is None:
            self._log.set_schema(self._lineage, self._epoch, schema.to_json())
            self.schema = schema

    def spool(self, phase: Phase) -> Path:
        """Where the opened updates of a phase wait for its end."""
        return self._state / "spool" / f"{phase.epoch}-{phase.round}-{phase.task}"

    def parcel(self) -> Parcel | None:
        """The transfer of the newest model, None while there is none."""
        if self.model is None:
            return None
        if self._parcel is None or self._parcel.core.base != self.model.sha256:
            phase = Phase(self._lineage, self._epoch, self.model.round, "train")
            federation = self._config.federation.name
            self._parcel = self._registry.parcel(self.model, phase, self._keyring, federation, self._identity.name)
        return self._parcel

    def base(self) -> Base | None:
        return base_of(self.parcel())

    def open(self, state: State) -> None:
        """Record that a phase opens; what an interrupted process left of earlier ones is put away."""
        for left in (self._state / "spool").glob("*"):
            if left != self.spool(state.phase):
                self._registry.keep_uploads(left, keep=left.name.endswith("-train"))
        base = self.base()
        self._log.open_round(
            state.phase, base.sha256 if base else None, self._config.plan, state.bar, sorted(state.expected)
        )
        # A plan that was changed while the process was down holds from the next phase on.
        row = self._log.open_phase(self._lineage, self._epoch)
        assert row is not None
        self.plan = msgspec.json.decode(row["plan"], type=Plan)

    def close(self, phase: Phase, *, up: int, down: int) -> None:
        """Make what the phase makes, then record it and the end of the phase in one transaction."""
        before = self.model
        spooled = self._spooled(phase)
        made = self._make(phase, spooled)
        row = None
        if made is not None:
            samples = sum(item.samples for item in spooled)
            row = self._registry.row(made, phase, self._identity, devices=len(spooled), samples=samples)
        self._log.close_round(phase, up=up, down=down, model=row, measured=before.sha256 if before else None)
        if made is not None:
            self.model, self._layout = made, trainable(weights.read_layout_of(made.path))
        with suppress(StoreError):  # the round is closed: `open` tries again
            self._registry.keep_uploads(self.spool(phase), keep=phase.task == "train")

    def void(self, phase: Phase) -> str:
        """Record that a phase came to nothing; the reasons that were given. Round 0 begins again in a new epoch."""
        reasons = sorted({f"{u['reason']}: {u['detail']}" for u in self._log.ended(phase)})
        if phase.round == 0:
            # The epoch comes first: a void phase 0 of the present epoch would be taken for one that has succeeded.
            self._epoch = self._next_epoch(phase.epoch + 1)
            self.schema = None
        self._log.void_round(phase)
        return "; ".join(reasons)[:500]

    def _at_the_beginning(self, policy: Policy) -> State:
        self._adopt_initial()
        number = self.model.round if self.model else None
        phase = first_phase(self._lineage, self._epoch, policy, model=number, scaled=self._scaled())
        return State(phase, policy.rounds.devices)

    def _adopt_initial(self) -> None:
        """The operator's model becomes global model 0, unless its scaling has still to be gathered."""
        if not self._config.rounds.initial or self.model is not None:
            return
        given = self._config.path(self._config.rounds.initial)
        layout = results.check_initial(given)
        self.accept_schema(Schema.from_json(layout.metadata["schema"]))
        if self._config.plan.scaling == "standard" and layout == trainable(layout):
            return
        phase = Phase(self._lineage, self._epoch, 0, "init")
        out = self._registry.path(phase)
        sha256 = results.first_model(given, None, self._schema_text(), out)
        self.model, self._layout = Model(0, out, sha256), trainable(weights.read_layout_of(out))
        self._log.add_model(self._registry.row(self.model, phase, self._identity, devices=0, samples=0))

    def _make(self, phase: Phase, spooled: list[results.Spooled]) -> Model | None:
        out = self._registry.path(phase)
        initial = self._config.rounds.initial
        if phase.task == "sums":
            results.combine_sums(spooled, self._scaling)
            if not initial:
                return None
            sha256 = results.first_model(self._config.path(initial), self._scaling, self._schema_text(), out)
        elif phase.task == "init":
            scaling = self._scaling if self._scaled() else None
            sha256 = results.first_model(spooled[0].path, scaling, self._schema_text(), out)
        elif phase.task == "train" and self.model is not None:
            sha256 = results.federated_mean(spooled, self.model.path, out)
        else:
            return None
        return Model(phase.round, out, sha256)

    def _spooled(self, phase: Phase) -> list[results.Spooled]:
        folder = self.spool(phase)
        return [
            results.Spooled(u["device"], folder / f"{u['device']}.safetensors", u["samples"])
            for u in self._log.ended(phase)
            if u["outcome"] == "accepted" and u["sha256"]
        ]

    @property
    def _scaling(self) -> Path:
        return self._state / f"scaling-{self._epoch}.safetensors"

    def _scaled(self) -> bool:
        return self._config.plan.scaling == "standard" and self._scaling.exists()

    def _schema_text(self) -> str:
        assert self.schema is not None
        return self.schema.to_json()

    def _check_owner(self) -> None:
        for owner in self._log.owners():
            if owner != (self._config.federation.name, self._lineage):
                raise ConfigError(
                    f"{self._log.path} belongs to lineage {owner[1]!r} of federation {owner[0]!r}: "
                    "choose other folders for this one ([paths] log, models, state)"
                )

    def _newest_model(self) -> Model | None:
        row = self._log.newest_model(self._lineage, self._epoch)
        if row is None:
            return None
        path = self._config.path(self._config.paths.models) / row["file"]
        with storing(path):
            found = hash_of(path)
        if found != row["sha256"]:
            raise StoreError(f"{path}: not the model that the log knows (another SHA-256); restore it from a backup")
        return Model(row["round"], path, row["sha256"])

    def _read_layout(self) -> weights.Layout | None:
        return trainable(weights.read_layout_of(self.model.path)) if self.model else None

    def _begin_epoch(self) -> int:
        # A log that was lost begins a new epoch: devices remember what they did in the old one.
        known = self._log.known_epoch(self._lineage)
        path = self._state / "epoch"
        kept = int(path.read_text()) if path.exists() else 0
        return self._next_epoch(known if known is not None else kept + 1)

    def _next_epoch(self, epoch: int) -> int:
        write_atomically(self._state / "epoch", str(epoch).encode())
        self._log.federation(self._config.federation.name, self._lineage, epoch, self._keyring.suite)
        return epoch
