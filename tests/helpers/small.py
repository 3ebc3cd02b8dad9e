"""What makes a small log for the tests of what pages ask: devices, models, rounds, updates."""

from __future__ import annotations

from collections.abc import Iterable

from aggregator.log import Log, Outcome
from floe.messages import Phase, Status
from floe.plan import Plan
from floe.report import Metrics, Report

HASHES = [str(number) * 64 for number in range(10)]


def train(round: int, epoch: int = 1) -> Phase:
    return Phase("main", epoch, round, "train")


def add_model(log: Log, round: int, epoch: int = 1, sha256: str = "") -> None:
    log.add_model(
        {
            "lineage": "main", "epoch": epoch, "round": round, "sha256": sha256 or HASHES[round], "bytes": 100 + round,
            "file": f"global/{round}.safetensors", "devices": 2, "samples": 40, "signature": "s",
        }
    )  # fmt: skip


def open_round(log: Log, round: int, expected: Iterable[str], plan: Plan | None = None) -> None:
    log.open_round(train(round), HASHES[round - 1], plan or Plan(), "f" * 16, list(expected))


def update(
    log: Log, device: str, round: int, outcome: str = "accepted", reason: str = "", detail: str = "",
    merged: int | None = None, accuracy: float = 0.75,
) -> None:  # fmt: skip
    before, after = Metrics(loss=1.0, accuracy=0.5), Metrics(loss=0.5, accuracy=accuracy)
    told = Report(samples=20, test_samples=10, before=before, after=after, threshold=0.1, seconds=1.5)
    ended = Outcome(f"{device} {round} {outcome}", device, train(round), outcome, reason, detail)
    log.update(ended, told, bytes_=1000, sha256="f" * 64, suite="plaintext", merged=merged)


def known(log: Log, *devices: str, state: str = "idle") -> None:
    for device in devices:
        log.pin(device, f"key of {device}")
        log.status(Status(federation="f", sender=device, key="k", proof="", seq=1, state=state, software="0.1.0"))  # type: ignore[arg-type]
    log.flush(1e9)
