"""From what a fleet's run showed to its table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bench.fleet import Fleet
from bench.folder import Settings, model_bytes
from floe.errors import IncompleteError
from floe.terminal import size_words

COLUMNS = {
    "round": "round",
    "accepted": "accepted",
    "close_seconds": "closed s",
    "seconds": "in hands s",
    "aggregator_cpu_seconds": "aggregator CPU s",
    "aggregator_peak_mb": "peak MB",
}
MEDIANS = ("close_seconds", "seconds", "aggregator_cpu_seconds")


def fleet_result(settings: Settings, observed: Fleet) -> dict[str, Any]:
    """What `floe bench fleet --json` prints. The first round is left out of the medians: every device begins in it.

    Raises `IncompleteError` unless every device had its part in every round.
    """
    for row in observed.rounds:
        if (row["accepted"], row["in_hands"]) != (settings.clients, settings.clients):
            raise IncompleteError(
                f"round {row['round']}: {row['accepted']} updates were accepted and {row['in_hands']} devices were"
                f" given the model, of {settings.clients}"
            )
    if len(observed.rounds) != settings.rounds:
        raise IncompleteError(f"{len(observed.rounds)} of {settings.rounds} rounds were closed")
    return {
        "devices": settings.clients,
        "params": settings.params,
        "bytes": model_bytes(settings),
        "suite": settings.suite,
        **{name: statistics.median(row[name] for row in observed.rounds[1:]) for name in MEDIANS},
        "aggregator_peak_mb": observed.aggregator_peak / 1e6,
        "aggregator_whole_cpu_seconds": observed.aggregator_cpu_s,
        "broker_peak_mb": observed.broker_peak / 1e6,
        "broker_whole_cpu_seconds": observed.broker_cpu_s,
        "rounds": observed.rounds,
    }


def fleet_lines(result: Mapping[str, Any]) -> list[str]:
    """A result of `floe bench fleet` for a person."""
    lines = [f"{result['devices']} simulated devices, {size_words(result['bytes'])}, {result['suite']}"]
    lines.append("  ".join(title.rjust(8) for title in COLUMNS.values()))
    rows = [*result["rounds"], {"round": "median", "accepted": result["devices"], **result}]
    for row in rows:
        cells = [row[name] for name in COLUMNS]
        texts = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append("  ".join(text.rjust(max(len(t), 8)) for text, t in zip(texts, COLUMNS.values(), strict=True)))
    for name in ("aggregator", "broker"):
        peak, cpu = result[f"{name}_peak_mb"], result[f"{name}_whole_cpu_seconds"]
        lines.append(f"{name:<10}  {peak:8.1f} MB peak (VmHWM)  {cpu:8.1f} s of processor time in all")
    return lines
