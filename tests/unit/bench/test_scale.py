"""How the cost grows: every point once, drawn in one figure that needs no colour."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bench.figure import HEIGHT, INK, TOP, Panel, Scale, decades, draw, words
from bench.folder import Settings
from bench.scale import GROWS, MEASURES, figure, measure, scale_lines

SVG = "{http://www.w3.org/2000/svg}"


def fake(settings: Settings) -> dict[str, Any]:
    return {"seconds": settings.clients * 0.01, "aggregator_peak_mb": 60.0 + settings.bytes / 1e7, "other": 1}


def test_every_point_is_run_once_and_only_one_thing_grows_at_a_time() -> None:
    asked: list[Settings] = []

    def fleet(settings: Settings) -> dict[str, Any]:
        asked.append(settings)
        return fake(settings)

    result = measure("fernet", fleet)
    assert len(asked) == len(set(asked)) == sum(len(values) for _, values in GROWS.values()) - 2
    assert [len(panel["points"]) for panel in result["panels"]] == [len(values) for _, values in GROWS.values()]
    assert result["panels"][0]["points"][0] == {"x": 2, "seconds": 0.02, "aggregator_peak_mb": 60.01}
    assert {s.suite for s in asked} == {"fernet"}
    text = "\n".join(scale_lines(result))
    assert all(title in text for title, _ in GROWS.values())


def test_the_figure_shows_every_value_once_in_one_ink() -> None:
    root = ET.fromstring(figure(measure("plaintext", fake)))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    points = sum(len(values) for _, values in GROWS.values())
    assert len(list(root.iter(f"{SVG}circle"))) == points + 1  # and one in the legend
    assert len(list(root.iter(f"{SVG}rect"))) == points + 1
    assert {*MEASURES.values(), *(title for title, _ in GROWS.values())} <= set(texts)
    inks = {element.get(name) for element in root.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert inks == {INK}


def test_what_is_drawn_stays_inside() -> None:
    root = ET.fromstring(draw([Panel("a < b", [(1, (0.004, 70.0)), (10, (12.5, 700.0))])], ["s", "MB"]))
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for mark in root.iter(f"{SVG}circle"):
        assert 0 < float(mark.get("cx") or 0) < width
        assert 0 < float(mark.get("cy") or 0) < height


def test_a_scale_is_logarithmic() -> None:
    scale = Scale(0.1, 1000.0, TOP + HEIGHT, TOP)
    assert [scale(0.1), scale(10.0), scale(1000.0)] == pytest.approx([TOP + HEIGHT, TOP + HEIGHT / 2, TOP])


@pytest.mark.parametrize(
    ("low", "high", "found"), [(0.07, 66.0, (0.01, 100.0)), (1.0, 1.0, (1.0, 10.0)), (10.0, 100.0, (10.0, 100.0))]
)
def test_an_axis_ends_at_powers_of_ten(low: float, high: float, found: tuple[float, float]) -> None:
    assert decades(low, high) == pytest.approx(found)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0341, "0.034"), (1, "1"), (4.532, "4.5"), (66.66, "67"), (1000, "1000")]
)
def test_a_value_is_short(value: float, text: str) -> None:
    assert words(value) == text
