"""What the conductor tells the state machine of a round that came to nothing."""

from __future__ import annotations

from unittest.mock import Mock

from aggregator.conduct import Conductor
from aggregator.control import Control
from aggregator.phases import Policy
from aggregator.states import State, Tick
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Rounds


def test_rounds_end_with_a_void_one_after_which_no_more_are_needed() -> None:
    """Else every round that is left would be trained, and void for the same reason."""
    a = frozenset("a")
    refused = State(Phase("main", 1, 3, "train"), stage="open", last=9, online=a, expected=a, refused=a)
    chain = Mock(**{"restore.return_value": refused, "parcel.return_value": None, "threshold": None})
    chain.enough.return_value = "privacy budget spent"
    policy = Policy(Rounds(devices=1, count=9), Plan())
    wire = Mock(federation="floe")
    wire.identity.name = "main"
    conductor = Conductor(wire, chain, Mock(), Mock(), Mock(), policy, Control, Mock(), clock=lambda: 1000.0)
    conductor.step(Tick())
    conductor.perform()
    chain.void.assert_called_once()
    assert (conductor.state.phase.task, conductor.state.phase.round) == ("evaluate", 3)
