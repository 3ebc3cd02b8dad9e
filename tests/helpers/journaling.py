"""Trainers that write down every update they make, for `helpers.recount`; one of them comes late, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from chaos.judge import Journal

from edge_client.data.features import Features
from edge_client.interrupted import Interrupted
from floe.plan import Plan
from floe.report import Report
from helpers.plain import Arrays, Plain

JOURNAL = "journal"  # in the federation's folder, made by the test
TRAINERS = {"journaling": "helpers.journaling:Journaling", "late": "helpers.journaling:Late"}


class Journaling(Plain):
    """`Plain`, with a journal. Implements `edge_client.own.Trainer`."""

    def __init__(self, features: Features, plan: Plan) -> None:
        super().__init__(features, plan)
        self._schema = features.schema.to_json()

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        arrays, report = super().train(base, device=device, round=round, stop=stop)
        Journal(Path(JOURNAL)).add(device, round, report.samples, arrays, self._schema)
        return arrays, report


class Late(Journaling):
    """With a quorum of 2 of a, b and c, and below it void: c is a round late in every odd round, an even one is void.

    c begins an odd round, and goes on when its model is there; a waits with its update until c has begun, and has the
    answers to what it sent before. In even rounds only a has an update.
    """

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        begun = Path(f"begun-{round}")
        if device == "c":
            begun.touch()
        if round % 2 == 0 and device != "a":
            raise ValueError("nothing from here in an even round")
        if round % 2 and device == "c":
            _wait(Path(f"models/global/{round}.safetensors").exists, stop)
        if round % 2 and device == "a":
            _wait(lambda: begun.exists() and not any(Path("state/device-c/outbox").glob("*.json")), stop)
        return super().train(base, device=device, round=round, stop=stop)


def _wait(holds: Callable[[], bool], stop: Callable[[], bool]) -> None:
    while not holds():
        if stop():
            raise Interrupted
        time.sleep(0.01)
