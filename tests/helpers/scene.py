"""A federation in the middle of a round, the moment at which the tests kill, cut and fill."""

from __future__ import annotations

from floe.messages import Manifest
from floe.signing import verify
from helpers.federation import BIG, Federation
from helpers.process import Process
from helpers.proxy import DROP, PASS, Message, Proxy, Verdict

PASSED = 10  # chunks
ACCEPTED = "SELECT * FROM updates WHERE device = ? AND round = ? AND task = 'train' AND outcome = 'accepted'"


class Stall:
    """A rule: the first ten chunks of a device's first training round pass, then none until `released`."""

    def __init__(self) -> None:
        self.passed = 0
        self.stalled = False
        self.released = False

    def __call__(self, message: Message) -> Verdict:
        if self.released or not message.upward or "/main/1/chunk/" not in message.topic:
            return PASS
        self.passed += 1
        self.stalled = self.passed > PASSED
        return DROP if self.stalled else PASS


class Scene:
    """A federation in the middle of round 1: a has its answer, b's upload hangs after ten chunks."""

    def __init__(self, federation: Federation, stall: Stall, proxy: Proxy) -> None:
        federation.configure({**BIG, "rounds": {"quorum": 2}})
        self.federation, self.stall, self.proxy = federation, stall, proxy
        self.aggregator = federation.aggregator()
        self.a = federation.client("a")
        self.b = self.start_b()
        self.before = federation.until(ACCEPTED, "a", 1)
        federation.wait(lambda: stall.stalled, "b's upload was to hang")
        federation.wait(self._written, "the aggregator was to have what has passed on its disk")

    def _written(self) -> bool:
        part = self.federation.folder / "state" / "aggregator-main" / "incoming" / "b.part"
        if not part.is_file():
            return False
        core = verify(part.with_suffix(".manifest").read_bytes(), Manifest).core
        return part.stat().st_size >= PASSED * core.chunk_size

    def start_b(self) -> Process:
        return self.federation.client("b", port=self.proxy.port)

    def go_on(self, undisturbed: dict[int, str]) -> None:
        self.stall.released = True
        self.federation.finish()
        assert self.federation.models() == undisturbed
        [kept] = self.federation.query(ACCEPTED, "a", 1)
        assert kept == self.before | {"weight": kept["weight"]}, "what was accepted stays as it was, but for its share"
        accepted = self.federation.query("SELECT device, round, task FROM updates WHERE outcome = 'accepted'")
        assert len(accepted) == len({tuple(row.values()) for row in accepted}), "accepted twice"
