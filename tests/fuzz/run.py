"""Longer than CI: hostile inputs to every target by turns, led by the lines of Floe's that they reach.

    python tests/fuzz/run.py --seconds 600 [--only weights --only npz]

What reaches a line from a line from which nothing kept had reached it is put into the corpus; what a target may not
do is made small, put there too, and printed: then the exit code is 1. Commit what it adds.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.caps import call  # noqa: E402 (the path comes first)
from fuzz.inputs import hostile  # noqa: E402
from fuzz.targets import CORPUS, TARGETS, Target, kept  # noqa: E402

EXAMPLES = 300  # of one turn: then the pool has what they found
MAX_KEPT = 8192  # bytes of an input that only reaches something new
WATCHED = tuple(str(ROOT / package) for package in ("floe", "aggregator", "edge_client"))
Step = tuple[CodeType, int, int]


class Reach:
    """The steps from line to line that inputs have taken in Floe's code."""

    def __init__(self) -> None:
        self.seen: set[Step] = set()

    def new(self, run: Callable[[], object]) -> bool:
        """Whether a call takes a step that none took before. Whatever it raises comes through."""
        steps: set[Step] = set()
        last: dict[FrameType, int] = {}

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            steps.add((frame.f_code, last.get(frame, 0), frame.f_lineno))
            last[frame] = frame.f_lineno
            return step

        def enter(frame: FrameType, event: str, argument: Any) -> Any:
            return step if frame.f_code.co_filename.startswith(WATCHED) else None

        sys.settrace(enter)
        try:
            run()
        finally:
            sys.settrace(None)
            fresh = not steps <= self.seen
            self.seen |= steps
        return fresh


class Explorer:
    """One target, what it has been given, and what came of it."""

    def __init__(self, name: str, target: Target) -> None:
        self.name, self._target = name, target
        self._reach, self._last = Reach(), b""
        self._pool = target.pool(name)
        self.inputs = self.found = self.failed = 0
        for data in self._pool:
            self._reach.new(lambda data=data: call(target.run, data, target.allowed))  # type: ignore[misc]

    def turn(self) -> None:
        """Some examples from the pool, which then has what was new."""
        fresh: list[bytes] = []

        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(hostile(self._pool, self._target.frame))
        def one(data: bytes) -> None:
            self.inputs, self._last = self.inputs + 1, data
            if self._reach.new(lambda: call(self._target.run, data, self._target.allowed)):
                fresh.append(data)

        try:
            one()
        except Exception:
            self.failed += 1
            print(f"{self.name}: FAILED on {self._keep(self._last)}\n{traceback.format_exc(limit=-3)}", flush=True)
        for data in fresh:
            self._pool.append(data)
            if len(data) <= MAX_KEPT:
                self._keep(data)
                self.found += 1

    def _keep(self, data: bytes) -> Path:
        path = CORPUS / self.name / hashlib.sha256(data).hexdigest()[:16]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="for all targets together")
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="this target; may be given again")
    given_ = parser.parse_args()
    names = given_.only or list(TARGETS)
    explorers = [Explorer(name, TARGETS[name]) for name in names]
    end = time.monotonic() + given_.seconds
    while time.monotonic() < end and explorers:
        for explorer in explorers:
            if not explorer.failed and time.monotonic() < end:
                explorer.turn()
    for one in explorers:
        print(
            f"{one.name:16} {one.inputs:8} inputs, {one.found:4} kept of {len(kept(one.name)):4}, {one.failed} failed"
        )
    return 1 if any(one.failed for one in explorers) else 0


if __name__ == "__main__":
    sys.exit(main())
