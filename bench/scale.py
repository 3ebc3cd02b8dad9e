"""How the cost of a round grows: with clients, with the size of the model, with the rounds before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bench.figure import Panel, draw
from bench.folder import Settings
from floe.messages import Suite
from floe.terminal import size_words

MEASURES = {"seconds": "seconds until all have the model", "aggregator_peak_mb": "aggregator's peak memory, MB"}
FEW, SMALL, SHORT = 2, 25_000, 3  # clients, parameters, rounds where something else grows
GROWS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "clients": (f"clients (model of {size_words(SMALL * 4)})", (2, 10, 50, 200, 1000)),
    "params": (f"model in MB ({FEW} clients)", (25_000, 250_000, 2_500_000, 7_500_000)),
    "rounds": (f"rounds ({FEW} clients, {size_words(SMALL * 4)})", (3, 30, 100)),
}


def measure(suite: Suite, fleet: Callable[[Settings], Mapping[str, Any]]) -> dict[str, Any]:
    """Run every point once, by `fleet`, which gives what `floe bench fleet --json` prints."""
    base, known = Settings(FEW, SMALL, SHORT, suite), dict[Settings, Mapping[str, Any]]()
    panels = []
    for name, (title, values) in GROWS.items():
        points = []
        for value in values:
            grown: dict[str, Any] = {name: value}
            settings = replace(base, **grown)
            known[settings] = found = known.get(settings) or fleet(settings)
            x = settings.bytes / 1e6 if name == "params" else value
            points.append({"x": x, **{measure: found[measure] for measure in MEASURES}})
        panels.append({"title": title, "points": points})
    return {"suite": suite, "panels": panels}


def scale_lines(result: Mapping[str, Any]) -> list[str]:
    """A result of `floe bench scale` for a person."""
    lines = []
    for panel in result["panels"]:
        lines.append(panel["title"])
        lines += [
            f"  {point['x']:>8g}  {point['seconds']:8.3f} s  {point['aggregator_peak_mb']:8.1f} MB"
            for point in panel["points"]
        ]
    return lines


def figure(result: Mapping[str, Any]) -> str:
    """The same as one figure, an SVG."""
    panels = [
        Panel(panel["title"], [(point["x"], [point[name] for name in MEASURES]) for point in panel["points"]])
        for panel in result["panels"]
    ]
    return draw(panels, list(MEASURES.values()))
