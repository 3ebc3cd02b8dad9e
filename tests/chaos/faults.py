"""What goes wrong in a chaos run, and when: by a seed. Each kind is injected once before any is injected again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from chaos.stage import AGGREGATOR, Stage
from helpers.proxy import DROP, PASS, TWICE, Message, Verdict

DAY_S = 86_400.0
TO_MESSAGES = ("dropped", "duplicated", "reordered", "delayed")
GAP = (5, 25)  # messages between two that something happens to
LONGEST_DELAY_S = 2.0


class Weather:
    """The proxy's rule: what happens to messages on their way. `counts` by kind; quiet once `calm` is set."""

    def __init__(self, seed: int) -> None:
        self.counts = Counter[str]()
        self.calm = False
        self._dice = random.Random(seed)
        self._turn: list[str] = []
        self._left = 0

    def __call__(self, message: Message) -> Verdict:
        self._left -= 1
        if self.calm or self._left >= 0:
            return PASS
        self._left = self._dice.randint(*GAP)
        if not self._turn:
            self._turn = self._dice.sample(TO_MESSAGES, len(TO_MESSAGES))
        kind = self._turn.pop()
        self.counts[kind] += 1
        return self._verdict(kind)

    def _verdict(self, kind: str) -> Verdict:
        match kind:
            case "dropped":
                return DROP
            case "duplicated":
                return TWICE
            case "reordered":
                return Verdict(behind=True)
        return Verdict(delay_s=self._dice.uniform(0.05, LONGEST_DELAY_S))


class Script:
    """Faults that have a beginning and an end. `step` begins those that are due, and ends them."""

    def __init__(self, stage: Stage, seed: int, seconds: float) -> None:
        self.counts = Counter[str]()
        self.down: set[str] = set()
        self.longest_cut_s = 0.0
        self._stage = stage
        self._dice = random.Random(seed)
        self._kinds: dict[str, Callable[[], bool]] = {
            "aggregator killed": lambda: self._kill(AGGREGATOR),
            "device killed": lambda: self._kill(self._dice.choice(stage.devices)),
            "broker killed": self._kill_broker,
            "link cut": lambda: self._link(stage.proxy.cut),
            "link hung": lambda: self._link(stage.proxy.hang),
            "clock of the aggregator set": lambda: self._set_clock(AGGREGATOR),
            "clock of a device set": lambda: self._set_clock(self._dice.choice(stage.devices)),
            "disk of the aggregator full": lambda: self._fill(AGGREGATOR),
            "disk of a device full": lambda: self._fill(self._dice.choice(stage.devices)),
        }
        self._longest_s = min(seconds / 5, 150.0)
        self._pause_s = min(seconds / 20, 8.0)
        self._turn: list[str] = []
        self._next = time.monotonic() + self._pause_s
        self._ends: list[tuple[float, Callable[[], None]]] = []
        self._busy: set[str] = set()

    @property
    def kinds(self) -> list[str]:
        return list(self._kinds)

    def step(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for due in [end for end in self._ends if now >= end[0]]:
            self._ends.remove(due)
            due[1]()
        if now < self._next:
            return
        if not self._turn:
            self._turn = self._dice.sample(self.kinds, len(self.kinds))
        kind = self._turn.pop()
        if self._kinds[kind]():
            self.counts[kind] += 1
        else:
            self._turn.insert(0, kind)  # its target is in trouble already
        self._next = now + self._pause_s * self._dice.uniform(0.3, 1.0)

    def end(self) -> None:
        """Everything is as it should be from now on, but for the clocks."""
        for _, end in self._ends:
            end()
        self._ends.clear()

    def _for(self, seconds: float, what: str, end: Callable[[], None]) -> bool:
        """Note that a fault has begun, and when it is over."""

        def over() -> None:
            self._busy.discard(what)
            end()

        self._busy.add(what)
        self._ends.append((time.monotonic() + seconds, over))
        return True

    def _span(self) -> float:
        """Seconds, mostly few."""
        return self._dice.uniform(0.5, min(self._longest_s, 15.0))

    def _kill(self, name: str) -> bool:
        if name in self._busy or not self._stage.running(name):
            return False
        self._stage.kill(name)
        self.down.add(name)

        def again() -> None:
            self.down.discard(name)
            self._stage.start(name)

        return self._for(self._dice.uniform(0.0, 4.0), name, again)

    def _kill_broker(self) -> bool:
        if "broker" in self._busy:
            return False
        self._stage.kill_broker()
        return self._for(self._dice.uniform(0.0, 5.0), "broker", self._stage.start_broker)

    def _link(self, how: Callable[[str], None]) -> bool:
        name = self._stage.on_wire(self._dice.choice(self._stage.names))
        if f"link {name}" in self._busy:
            return False
        how(name)
        # The first is the longest: minutes if there is time.
        seconds = self._span() if self.longest_cut_s else self._longest_s
        self.longest_cut_s = max(self.longest_cut_s, seconds)
        return self._for(seconds, f"link {name}", lambda: self._stage.proxy.mend(name))

    def _set_clock(self, name: str) -> bool:
        self._stage.set_clock(name, self._dice.choice([-DAY_S, 0.5 * DAY_S, DAY_S, 2 * DAY_S]))
        return self._for(self._dice.uniform(2.0, 10.0), f"clock {name}", lambda: self._stage.set_clock(name, 0.0))

    def _fill(self, name: str) -> bool:
        disk = self._stage.disks[name]
        if disk.full:
            return False
        disk.fill()
        return self._for(min(self._span(), 20.0), f"disk {name}", disk.free)
