"""Charts: what is drawn of which values, and that lines are told apart by more than their colour."""

from __future__ import annotations

from typing import Any

import pytest

from ui.parts import charts, words
from ui.parts.charts import line_spec, long_form
from ui.queries.standing import Doing, Upload


def layer(spec: dict[str, Any], mark: str) -> dict[str, Any]:
    [found] = [one for one in spec["layer"] if one["mark"]["type"] == mark]
    return dict(found["encoding"])


def test_values_that_are_not_there_are_left_out() -> None:
    columns = long_form({"a": [(1, 0.5), (2, None), (3, 0.75)], "b": [(1, None)]})
    assert (columns["x"], columns["value"], columns["line"]) == ([1, 3], [0.5, 0.75], ["a", "a"])


@pytest.mark.parametrize("count", [1, 2, charts.MARKED, 59, 1000, 1001])
def test_a_long_line_has_all_its_points_and_few_markers_the_last_among_them(count: int) -> None:
    columns = long_form({"a": [(n, float(n)) for n in range(count)]})
    assert len(columns["x"]) == count
    assert columns["marked"][-1]
    assert sum(columns["marked"]) <= 2 * charts.MARKED


def test_lines_are_told_apart_by_dash_and_marker_and_not_by_colour_alone() -> None:
    spec = line_spec(("ours", "theirs"), "round", "loss", ".3f", "", False)
    dashes = layer(spec, "line")["strokeDash"]["scale"]
    markers = layer(spec, "point")["shape"]["scale"]
    assert dashes["domain"] == ["ours", "theirs"]
    assert len({str(dash) for dash in dashes["range"]}) == 2
    assert len(set(markers["range"])) == 2


def test_the_y_axis_is_not_forced_to_zero_and_the_axes_have_titles() -> None:
    axes = layer(line_spec(("a",), "round", "seconds of a round", ".3~g", " s", False), "line")
    assert axes["y"]["scale"]["zero"] is False
    assert (axes["x"]["title"], axes["y"]["title"]) == ("round", "seconds of a round")
    assert "' s'" in axes["y"]["axis"]["labelExpr"]


def test_a_line_over_times_names_unit_and_zone_and_has_an_extent_before_its_data() -> None:
    spec = charts.time_spec("CPU (%)", "Europe/Zurich", "%H:%M:%S", True)
    axes = spec["encoding"]
    assert (axes["x"]["title"], axes["y"]["title"]) == ("Europe/Zurich", "CPU (%)")
    for axis in ("x", "y"):
        assert all("length(data(" in end["expr"] for end in axes[axis]["scale"]["domain"])
    time, value = axes["tooltip"]
    assert (time["title"], time["format"]) == ("time (Europe/Zurich)", "%Y-%m-%d %H:%M:%S")
    assert (value["title"], value["format"]) == ("CPU (%)", ",.1f")


def test_a_chart_takes_its_looks_from_the_page() -> None:
    assert "config" not in charts.bar_spec(("idle",), "devices")
    assert "config" not in charts.network_spec(3, 6, ("broker",), ("cut",))


def test_the_groups_of_a_round_have_a_row_each_also_when_nobody_is_in_them() -> None:
    doing: dict[str, Doing] = {f"d{n:04}": "training" for n in range(5000)} | {"z": "uploading", "y": "done"}
    found = words.groups(doing, [Upload("z", 1, "train", 3, 10, "")])
    rows = {what: (count, names) for what, count, names in zip(*found.values(), strict=True)}
    assert list(rows) == list(words.DOING.values())
    assert rows["▶ training"][0] == 5000
    assert str(rows["▶ training"][1]).startswith("d0000, d0001, ")
    assert str(rows["▶ training"][1]).endswith(" and 4,988 more")
    assert rows["↑ uploading"] == (1, "z 30%")
    assert rows["✖ offline"] == (0, "")


def test_states_keep_their_order_and_one_that_is_not_known_is_shown() -> None:
    assert list(words.in_order({"revoked": 1, "new": 2, "online": 3, "idle": 0})) == ["online", "revoked", "new"]
