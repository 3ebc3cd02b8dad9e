"""The picture of the network: who is drawn, how each is linked, and that thousands do not make thousands of marks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ui.parts import topology
from ui.parts.topology import Link, Node, link_of
from ui.queries.network import Heard, Operator, broker_figures
from ui.queries.vitals import Figure

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def before(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told(heard: float = 5, **bridges: str) -> list[Figure]:
    figures = [Figure("$SYS/broker/version", "mosquitto version 2.0.18", before(heard))]
    return figures + [Figure(f"$SYS/broker/connection/{n}/state", s, before(heard)) for n, s in bridges.items()]


def picture(
    devices: list[Heard], figures: list[Figure] | None = None, *, running: bool | None = True, operators: int = 1
) -> tuple[Node, ...]:
    return topology.nodes(
        address="127.0.0.1:1883", lineage="main", running=running, devices=devices, now=NOW,
        broker=broker_figures(told() if figures is None else figures),
        operators=[Operator(f"o{n}", before(10)) for n in range(operators)],
    )  # fmt: skip


def a(device: str, state: str = "idle", seen: float = 5, told: float | None = 5) -> Heard:
    return Heard(device, state, before(seen), None if told is None else before(told))


@pytest.mark.parametrize(
    ("device", "link"),
    [
        (a("x", "idle"), "connected"),
        (a("x", "training", seen=9000, told=None), "connected"),
        (a("x", "training", seen=9000, told=5), "connected"),
        (a("x", "online", seen=5, told=9000), "connected"),
        (a("x", "online", seen=301, told=301), "silent"),
        (a("x", "unknown"), "silent"),
        (a("x", "offline"), "cut"),
        (a("x", "revoked"), "cut"),
    ],
)
def test_the_link_of_a_device_is_told_by_its_state_and_by_when_it_was_heard(device: Heard, link: Link) -> None:
    assert link_of(device, NOW) == link


def test_everybody_is_there_one_by_one() -> None:
    found = picture([a("d1"), a("d2", "offline")], told(north="1", south="0"))
    assert [(one.kind, one.name, one.link) for one in found] == [
        ("broker", "broker 127.0.0.1:1883", "connected"),
        ("aggregator", "aggregator main", "connected"),
        ("operator", "operator o0", "connected"),
        ("bridge", "bridge north", "connected"),
        ("bridge", "bridge south", "cut"),
        ("device", "d1", "connected"),
        ("device", "d2", "cut"),
    ]


def test_five_thousand_devices_are_a_node_for_each_state() -> None:
    states = ("idle", "training", "offline", "unknown")
    found = picture(
        [a(f"d{n}", states[n % 4], seen=5 if n % 8 else 999, told=5 if n % 8 else 999) for n in range(5000)]
    )
    devices = [one for one in found if one.kind == "device"]
    assert sum(one.count for one in devices) == 5000
    assert {(one.link, one.word) for one in devices} == {
        ("connected", "idle"), ("connected", "training"), ("silent", "silent, idle"), ("silent", "silent, unknown"),
        ("cut", "offline"),
    }  # fmt: skip
    assert len(topology.marks(found)["mark"]) < 60


def test_an_aggregator_that_does_not_run_is_cut_and_one_that_hears_no_broker_is_silent() -> None:
    assert picture([], running=False)[1].link == "cut"
    assert picture([], told(heard=61))[1].link == "silent"
    assert picture([], told(heard=61))[0].link == "silent"
    assert picture([], [])[1].link == "connected"
    assert picture([], [], running=None)[1].link == "silent"


def test_many_operators_and_many_bridges_are_one_node_each() -> None:
    found = picture([], told(**{f"b{n}": str(int(n > 0)) for n in range(4)}), operators=7)
    assert [(one.name, one.count) for one in found if one.kind == "operator"] == [("7 operators", 7)]
    assert [(one.name, one.word, one.link) for one in found if one.kind == "bridge"] == [
        ("4 bridges", "3 connected", "cut")
    ]


@pytest.mark.parametrize("count", [0, 1, 6, 7, topology.ONE_BY_ONE])
def test_every_node_has_a_place_of_its_own_within_the_picture(count: int) -> None:
    found = picture([a(f"d{n}") for n in range(count)], told(north="1", south="0"), operators=2)
    places = [(x, y) for _, x, y in topology.places(found)]
    assert len(places) == len(set(places)) == len(found)
    assert all(0 < x < 1 and 0 <= y <= topology.rows_of(found) - 1 for x, y in places)


def test_every_node_but_the_broker_has_one_line_in_the_style_of_its_link() -> None:
    found = picture([a("d1"), a("d2", "offline"), a("d3", "unknown")], told(north="0"), operators=1)
    columns = topology.marks(found)
    assert len({len(column) for column in columns.values()}) == 1
    rows = list(zip(columns["mark"], columns["name"], columns["link"], strict=True))
    lines = [(name, link) for mark, name, link in rows if mark == "line"]
    assert sorted(lines) == sorted((one.name, one.link) for one in found if one.kind != "broker")
