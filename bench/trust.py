"""Federations side by side that differ in whom they trust, and how: the processor time of a round in each.

They take turns, a round each, so that a machine that is slow for a while is slow for all of them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import folder as bench_folder
from bench.federation import PATIENCE_S, environment
from bench.folder import Settings, Trust
from bench.listener import Listener
from bench.usage import cpu_seconds, only_child
from floe.asker import KnownRoster, load_asker
from floe.asking import ROUNDS, Asking
from floe.children import Child, Children, await_port, free_port
from floe.config import load
from floe.documents import Keys
from floe.errors import BrokerError, IncompleteError
from floe.hpke import sealing_text
from floe.identity import load_identity, load_sealing_key
from floe.managing import Managing, Shown
from floe.messages import Reply, Suite
from floe.operators import new_operator
from floe.service import Stop
from floe.settings import Config
from floe.sign_roster import Change, approve
from floe.transfer import chunk_bytes_for, chunk_count

MODES: tuple[Trust, ...] = ("shared", "ed25519", "rsa-2048-pss")
ENDLESS = 1_000_000
SETTLE_S = 0.3  # until the last client has opened and checked the last chunk of the model


@dataclass(frozen=True)
class Spent:
    """Processor seconds of one round."""

    aggregator: float
    clients: float
    broker: float


def run(settings: Settings, stop: Stop) -> Mapping[Trust, list[Spent]]:
    """`settings.rounds` rounds of each mode, after one that is not counted: every device begins in it.

    Raises `IncompleteError`, or the error of a process that ended.
    """
    spent: dict[Trust, list[Spent]] = {mode: [] for mode in MODES}
    endless = replace(settings, rounds=ENDLESS)  # the last round of all would bring an evaluation
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as name, ExitStack() as stack:
        sides = {
            mode: stack.enter_context(_running(replace(endless, trust=mode), Path(name) / mode, stop)) for mode in MODES
        }
        for number in range(settings.rounds + 1):
            first = number % len(MODES)
            for mode in (*MODES[first:], *MODES[:first]):
                spent[mode].append(sides[mode].round())
    return {mode: rows[1:] for mode, rows in spent.items()}


@contextmanager
def _running(settings: Settings, folder: Path, stop: Stop) -> Iterator[_Side]:
    """One federation with all its devices online, paused before its first round."""
    size, port = bench_folder.model_bytes(settings), free_port()
    folder.mkdir()
    bench_folder.make(folder, settings, port)
    config = load(environ={}, file=folder / "floe.toml")
    with Children(folder, environment()) as children:
        broker = children.start("broker", "broker")
        await_port(broker, port, stop)
        if settings.trust == "shared":
            new_operator("operator", config.path(config.security.operator_key), config.path(config.security.operators))
        else:
            children.wait(children.start("federation", "federation", "new"), stop)
        if stop():
            raise IncompleteError("stopped before the first round")
        listener = Listener(port, chunk_count(size, chunk_bytes_for(size)), updates=False)
        listener.connect(stop)
        aggregator, asker = children.start("aggregator", "aggregator"), load_asker(config)
        with closing(listener), closing(Asking(config, asker, stop)) as operator:
            side = _Side(children, broker, aggregator, listener, operator, stop)
            side.ask("pause")
            names = [f"client-{number}" for number in range(1, settings.clients + 1)]
            if asker.known is not None:
                _enrol(config, settings.suite, operator, asker.known, names)
            for name in names:
                side.clients.append(children.start(name, "client", "--id", name, "--data", "features"))
            side.until(lambda: side.ask("status").online == settings.clients)
            yield side


def _enrol(config: Config, suite: Suite, operator: Asking, known: KnownRoster, names: Sequence[str]) -> None:
    """Make the devices' keys and approve them. That takes no invitation: operator and devices are one here."""
    held = Managing(operator, known, PATIENCE_S)
    for name in names:
        folder = config.path(config.paths.state) / f"device-{name}" / "keys"
        signing = load_identity(folder, name, config.security.signatures).key
        keys = Keys(signing, sealing_text(load_sealing_key(folder, name).public_key()), (suite,))

        def make(shown: Shown, keys: Keys = keys) -> Change:
            return approve(shown.roster, held.operator, shown.place, keys, int(time.time()))

        held.change(name, held.show(name), make)


class _Side:
    """One federation, its processes, and the operator who lets it run a round at a time."""

    def __init__(
        self, children: Children, broker: Child, aggregator: Child, listener: Listener, operator: Asking, stop: Stop
    ) -> None:
        self.clients: list[Child] = []
        self._children = children
        self._broker = broker
        self._aggregator = aggregator
        self._listener = listener
        self._operator = operator
        self._stop = stop
        self._done = 0

    def round(self) -> Spent:
        """What one more round costs, with the operator's two commands."""
        before = self._used()
        self.ask("resume")
        reply = self.ask("pause")
        last = reply.phase.round - (reply.stage == "waiting")
        self.until(lambda: last in self._listener.rounds and bool(self._listener.rounds[last].pushed))
        time.sleep(SETTLE_S)
        rounds, self._done = last - self._done, last  # a second one may have begun before the pause
        return Spent(*((now - then) / rounds for now, then in zip(self._used(), before, strict=True)))

    def ask(self, action: str) -> Reply:
        """The reply to an operator's command. Raises `IncompleteError` if it was not followed."""
        self._check()
        try:
            reply = self._operator.ask(ROUNDS, PATIENCE_S, action=action)
        except BrokerError:
            self._check()  # an aggregator that has ended says why
            raise
        if not reply.done:
            raise IncompleteError(f"the aggregator does not {action}: {reply.detail}")
        return reply

    def until(self, condition: Callable[[], bool]) -> None:
        """Listen until something is so. Raises `IncompleteError`, or the error of a process that ended."""
        if not self._listener.listen(
            lambda: self._stop() or self._children.ended() is not None or condition(), PATIENCE_S
        ):
            raise IncompleteError(f"nothing was heard for {PATIENCE_S:g} s")
        self._check()

    def _check(self) -> None:
        if self._stop():
            raise IncompleteError("stopped before the last round")
        if (ended := self._children.ended()) is not None:
            raise ended.fault()

    def _used(self) -> tuple[float, float, float]:
        clients = sum(cpu_seconds(child.process.pid) for child in self.clients)
        mosquitto = only_child(self._broker.process.pid)
        return cpu_seconds(self._aggregator.process.pid), clients, cpu_seconds(mosquitto)
