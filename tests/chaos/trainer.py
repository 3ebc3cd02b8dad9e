"""The trainer of a chaos run: `Plain`, which keeps the judge's journal, and takes long enough to be killed at work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from chaos.judge import Journal
from helpers.plain import Arrays, Plain

from edge_client.data.features import Features
from floe.plan import Plan
from floe.report import Report

JOURNAL = "CHAOS_JOURNAL"
WORK_S = 0.3


class Journaling(Plain):
    """Implements `edge_client.own.Trainer`; the journal is in the folder that the environment names."""

    def __init__(self, features: Features, plan: Plan) -> None:
        super().__init__(features, plan)
        self._schema = features.schema.to_json()
        self._journal = Journal(Path(os.environ[JOURNAL]))

    def train(self, base: Arrays, *, device: str, round: int, stop: Callable[[], bool]) -> tuple[Arrays, Report]:
        time.sleep(WORK_S)
        arrays, report = super().train(base, device=device, round=round, stop=stop)
        self._journal.add(device, round, report.samples, arrays, self._schema)
        return arrays, report
