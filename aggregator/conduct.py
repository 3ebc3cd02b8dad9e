"""What the state machine says is done here: a phase is opened, closed, void, extended, and the devices are told.

`rounds.step` decides; an effect that the disk refuses stays first in the line, and is tried again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

from aggregator.chain import Chain
from aggregator.control import Control
from aggregator.log import Log
from aggregator.phases import Policy
from aggregator.rounds import missing, needed, quorum_of, step
from aggregator.states import (
    Close,
    Closed,
    Effect,
    Event,
    Extend,
    Finish,
    Open,
    State,
    Steered,
    Tell,
    Void,
    Voided,
    Wait,
)
from floe.errors import RuleError
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import Phase, Round
from floe.parcel import Parcel
from floe.topics import CurrentRound, Topic

NAMED = 20  # devices of a round that are named in the event; their list is in `rounds`


class Voice(Protocol):
    """Whom the rounds are told through: `floe.wire.Wire`."""

    federation: str
    identity: Identity
    received_bytes: int
    sent_bytes: int

    def send(self, topic: Topic, kind: type[Any], *, retain: bool = False, **fields: Any) -> None:
        """Publish a message."""


class Publishes(Protocol):
    """Who brings models to devices: `aggregator.publisher.Publisher`."""

    def publish(self, parcel: Parcel, devices: Collection[str] | None = None) -> None:
        """A model for all, or for these."""


def over(log: Log, last: Phase) -> str:
    """What has become of the rounds up to the last one, in words."""
    if not (void := len(log.void_rounds(last))):
        return f"all {last.round} rounds are closed"
    return f"{last.round} rounds: {last.round - void} closed, {void} void"


class Conductor:
    """The rounds of one lineage: their state, and what is to be done about it.

    `control` gives the operator's wish; `close_round` ends what is still on its way when a phase closes; `clock` counts
    seconds.
    """

    def __init__(
        self, wire: Voice, chain: Chain, publisher: Publishes, log: Log, keyring: Keyring, policy: Policy,
        control: Callable[[], Control], close_round: Callable[[Phase, Phase | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._wire = wire
        self._chain = chain
        self._publisher = publisher
        self._log = log
        self._keyring = keyring
        self._configured = policy
        self._policy = control().policy(policy)
        self._control = control
        self._close_round = close_round
        self._clock = clock
        self.state: State = chain.restore(clock(), control())
        self._effects: deque[Effect] = deque([Open()] if self.state.stage == "open" else [])
        self._counted = (0, 0)
        self._served: frozenset[str] | None = None

    def step(self, event: Event) -> None:
        """Something has happened."""
        if isinstance(event, Steered) and event.action in ("plan", "promote"):
            self._policy = self._control().policy(self._configured)
            self._effects.append(Tell())
        following = step(self.state, event, self._policy, self._clock())
        self.state = following.state
        self._effects.extend(following.effects)

    def perform(self) -> None:
        """Do what is to be done. Raises `StoreError`, `sqlite3.Error`: then it is still to be done."""
        while self._effects:
            match self._effects[0]:
                case Open():
                    self._open()
                case Wait():
                    if Open() not in self._effects:  # what follows at once needs no announcement
                        self.publish_round()
                        self.tell_waiting()
                case Tell():
                    self._tell()
                case Close():
                    self._close()
                case Void():
                    self._void()
                case Extend():
                    phase, more = self.state.phase, missing(self.state, self._policy)
                    self._chain.extend(self.state)
                    goes_on = f"{phase.task} {phase.round} goes on: {more} more updates are needed"
                    self._log.event("warning", "extended", f"{goes_on}, {len(self.state.accepted)} were accepted")
                    self.publish_round()
                case Finish():
                    self._close_round(self.state.phase, None)
                    self._log.event("info", "finished", over(self._log, self.state.phase))
                    self.publish_round()
            self._effects.popleft()

    def _open(self) -> None:
        state = self.state
        if state.phase.task != "train":
            self._close_round(state.phase, state.phase)
        self._chain.open(state)
        self._counted = (self._wire.received_bytes, self._wire.sent_bytes)
        expected = sorted(state.expected)
        devices = ", ".join(expected) if len(expected) <= NAMED else f"{len(expected)} devices"
        self._log.event("info", "opened", f"{state.phase.task} {state.phase.round} with {devices}")
        self.publish_round()

    def _tell(self) -> None:
        self._chain.take_present()
        self._served = None  # it is for all
        if self.state.stage in ("waiting", "finished"):
            self.publish_round()

    def _close(self) -> None:
        state = self.state
        phase, used = state.phase, len(state.accepted) + state.merged
        self._close_round(phase, phase)
        up, down = self._wire.received_bytes - self._counted[0], self._wire.sent_bytes - self._counted[1]
        try:
            devices = self._chain.close(phase, up=up, down=down)
        except RuleError as error:
            self._void(str(error))
            return
        # In asynchronous operation a model is for those whose updates made it; the others ask when they are ready.
        self._served = devices if self._policy.asynchronous and phase.task == "train" else None
        agreed = f": {self._chain.threshold:.6g}" if phase.task == "threshold" else ""
        self._log.event("info", "closed", f"{phase.task} {phase.round} closed with {used} updates{agreed}")
        self.step(Closed(self._chain.model is not None, self._enough()))

    def _void(self, fault: str = "") -> None:
        phase = self.state.phase
        self._close_round(phase, phase)
        reasons = self._chain.void(phase, fault)
        self._log.event("warning", "void", f"{phase.task} {phase.round} came to nothing: {reasons}")
        self.step(Voided(self._enough()))

    def _enough(self) -> str:
        """Why no more rounds follow the phase that has ended; empty if they do."""
        phase = self.state.phase
        enough = self._chain.enough(phase, self._control())
        if enough and phase.task == "train":
            self._log.event("info", "enough", f"no more rounds are needed: {enough}")
        return enough

    def tell_waiting(self) -> None:
        """Who is there, while a phase waits for more."""
        there, begins = len(self.state.online), needed(self.state, self._policy)
        held = f"; the rounds are {self.state.held}" if self.state.held else ""
        self._log.event("info", "waiting", f"{there} device(s) online; the round begins with {begins}{held}")

    def repeat(self) -> None:
        """The round document again, for whoever has lost it; not of a phase that is being closed."""
        if self.state.stage != "closing":
            self.publish_round()

    def publish_round(self) -> None:
        """The round document, and the present model before it."""
        if (parcel := self._chain.parcel()) is not None:
            self._publisher.publish(parcel, self._served)
        state, rounds = self.state, self._policy.rounds
        self._wire.send(
            CurrentRound(self._wire.federation, self._wire.identity.name),
            Round,
            retain=True,
            phase=state.phase,
            state="open" if state.stage == "closing" else state.stage,
            base=self._chain.base(),
            plan=state.plan if state.stage in ("open", "closing") else self._policy.plan,
            devices=rounds.members,
            bar=state.bar,
            quorum=quorum_of(state, self._policy),
            seconds_left=state.seconds_left(self._clock()),
            staleness=self._policy.max_staleness if state.phase.task == "train" else 0,
            roster=self._keyring.version,
            threshold=self._chain.threshold,
        )
