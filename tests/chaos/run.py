"""Chaos: a federation of real processes in which everything goes wrong by a seed, and a judge from outside.

    python tests/chaos/run.py --minutes 10 --seed 1 --devices 5

Prints what was injected, how many rounds closed, and what was lost (nothing). Exit code 1 if something was, or if a
kind of fault was injected zero times. It needs Mosquitto, and the right to mount a tmpfs (root).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chaos.faults import TO_MESSAGES, Script, Weather  # noqa: E402 (the path comes first)
from chaos.judge import judge  # noqa: E402
from chaos.stage import NoDisk, Stage  # noqa: E402

REST_S = 240.0


@dataclass(frozen=True)
class Result:
    """What was injected, what came of it, and what is wrong."""

    injected: dict[str, int]
    rounds: int
    made: int
    accepted: int
    otherwise: int
    models: int
    restarted: int
    longest_cut_s: float
    seconds: float
    wrong: list[str]


def chaos(folder: Path, *, seconds: float, seed: int, devices: int) -> Result:
    """Run it. Raises `NoDisk`."""
    began = time.monotonic()
    with Stage(folder, devices, seed) as stage:
        stage.federation.wait(lambda: 1 in stage.federation.models(), "a first round in peace")
        weather, script = Weather(seed), Script(stage, seed, seconds)
        stage.proxy.rule = weather
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            script.step()
            stage.look_after(script.down)
            time.sleep(0.05)
        script.end()
        weather.calm = True
        wrong = stage.come_to_rest(REST_S) + stage.died + stage.defects()
        injected = {**weather.counts, **script.counts}
        injected["reordered"] = stage.proxy.overtaken
        wrong += [f"never injected: {kind}" for kind in (*TO_MESSAGES, *script.kinds) if not injected.get(kind)]
        wrong += [] if stage.said_full() else ["no process has met its full disk"]
        wrong += [] if stage.clock_jumped() else ["the log shows no clock that jumped"]
        federation = stage.federation.folder
        found = judge(stage.journal, federation / "log" / "floe.sqlite", federation / "models" / "global", devices)
        rounds = len(stage.federation.query("SELECT round FROM rounds WHERE state = 'closed'"))
        return Result(
            dict(sorted(injected.items())), rounds, found.made, found.accepted, found.otherwise, found.models,
            stage.restarted, script.longest_cut_s, time.monotonic() - began, wrong + found.wrong,
        )  # fmt: skip


def tell(result: Result) -> None:
    print(f"after {result.seconds:.0f} s")
    for kind, count in result.injected.items():
        print(f"  {count:6d}  {kind}")
    print(f"  {result.restarted:6d}  restarts of a process that ended for want of room")
    print(f"  {result.longest_cut_s:6.0f}  seconds: the longest cut of a link")
    print(f"{result.rounds} phases closed, {result.models} models made again from the journal")
    print(f"{result.made} updates made, {result.accepted} accepted, {result.otherwise} ended otherwise")
    print("lost: nothing" if not result.wrong else "WRONG:")
    for fault in result.wrong:
        print(f"  {fault}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it there")
    arguments = parser.parse_args()
    if not (0 < arguments.minutes <= 10_000 and 1 <= arguments.devices <= 100):
        parser.error("--minutes is above 0 and at most 10000, --devices from 1 to 100")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: what was mounted is unmounted
    with tempfile.TemporaryDirectory(prefix="floe-chaos-") as temporary:
        folder = arguments.keep or Path(temporary)
        try:
            result = chaos(folder, seconds=arguments.minutes * 60, seed=arguments.seed, devices=arguments.devices)
        except NoDisk as error:
            sys.exit(f"chaos: {error}")
        except KeyboardInterrupt:
            sys.exit(130)
    print(json.dumps(vars(result))) if arguments.json else tell(result)
    sys.exit(bool(result.wrong))


if __name__ == "__main__":
    main()
