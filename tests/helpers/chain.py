"""An aggregator's files without its process: the chain as it is after a start, and a federation killed in round 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from aggregator.chain import Chain
from aggregator.control import Control
from aggregator.log import Log, Outcome
from aggregator.states import State
from floe import weights
from floe.files import hash_of
from floe.identity import load_identity
from floe.keyring import Keyring
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema
from floe.settings import Config, Rounds

ROUNDS = Rounds(devices=2)
SCHEMA = Schema((2,), 2)
SUMS, INIT, TRAIN = Phase("main", 1, 0, "sums"), Phase("main", 1, 0, "init"), Phase("main", 1, 1, "train")


@contextmanager
def started(
    folder: Path, scaling: str = "none", rounds: Rounds = ROUNDS, plan: Plan | None = None
) -> Iterator[tuple[Chain, State, Log]]:
    """The chain as `floe aggregator` makes it, restored."""
    state = folder / "state" / "aggregator-main"
    plan = plan or Plan(scaling=scaling)  # type: ignore[arg-type]
    config = Config(rounds=rounds, plan=plan, folder=folder)
    with closing(Log(folder / "log")) as log:
        identity = load_identity(state / "keys", "main")
        chain = Chain(config, log, state, identity, Keyring("chacha20-poly1305", bytes(32)))
        yield chain, chain.restore(0.0, Control()), log


def accept(chain: Chain, log: Log, phase: Phase, device: str, late: Path | None = None, **arrays: np.ndarray) -> None:
    """An update with weights, spooled and recorded; `late`: where the next round will find it."""
    path = late or chain.spool.path(device, phase, phase)
    weights.write(path, arrays, {"schema": SCHEMA.to_json()})
    ended = Outcome(f"{phase.task} {phase.round} {device}".ljust(32, "0"), device, phase, "accepted", "", "")
    log.pin(device, f"key of {device}")
    log.update(ended, Report(samples=10), bytes_=1, sha256=hash_of(path), suite="plaintext",
               merged=phase.round + bool(late))  # fmt: skip
    chain.accept_schema(SCHEMA)


def opened(phase: Phase, plan: Plan | None = None) -> State:
    return State(phase, stage="open", expected=frozenset({"a", "b"}), plan=plan or Plan())


def killed_in_round_1(folder: Path, plan: Plan | None = None) -> None:
    """Killed in round 1: model 0 is there and published, the updates of a and b are spooled."""
    with started(folder, plan=plan) as (chain, _, log):
        chain.open(opened(INIT, plan))
        accept(chain, log, INIT, "a", w=np.zeros(100, np.float32))
        chain.close(INIT, up=0, down=0)
        chain.open(opened(TRAIN, plan))
        accept(chain, log, TRAIN, "a", w=np.full(100, 1, np.float32))
        accept(chain, log, TRAIN, "b", w=np.full(100, 3, np.float32))
