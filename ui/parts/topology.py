"""The picture of the network: who is there, how each is linked, and where it is drawn. Pure.

Rows from above: aggregator and operators, the broker with its bridges, then the devices, six beside each other on a
line that comes from the broker. More devices than `ONE_BY_ONE` are a node for each state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ui.queries.network import BrokerFigures, Heard, Operator
from ui.queries.standing import HERE

ONE_BY_ONE = 60
ACROSS = 6
OTHERS = 2  # operators, bridges: more are one node
SILENT_S = 300.0  # no status and no vitals for so long: several of the reports that are due every minute
BROKER_SILENT_S = 60.0  # Mosquitto's sys_interval is 10 s
OPERATOR_S = 60.0
Link = Literal["connected", "silent", "cut"]
Kind = Literal["broker", "aggregator", "operator", "bridge", "device"]
LINKS: tuple[Link, ...] = ("connected", "silent", "cut")
KINDS: tuple[Kind, ...] = ("broker", "aggregator", "operator", "bridge", "device")
LEFT, MIDDLE, RIGHT = 0.17, 0.5, 0.83
TRUNK = 0.02  # x of the line that leads to all rows of devices
ABOVE = 0.45  # a row of devices its line


@dataclass(frozen=True)
class Node:
    """One of the network, or several alike. `word`: its state in words. `heard`: UTC as in the log."""

    kind: Kind
    name: str
    link: Link
    word: str
    count: int = 1
    heard: str | None = None


def nodes(
    *, address: str, lineage: str, running: bool | None, broker: BrokerFigures, devices: Sequence[Heard],
    operators: Sequence[Operator], now: datetime,
) -> tuple[Node, ...]:  # fmt: skip
    """Everybody, the broker first."""
    return (
        _broker(address, broker, now),
        _aggregator(lineage, running, broker, now),
        *_operators(operators, now),
        *_bridges(broker),
        *_devices(devices, now),
    )


def link_of(device: Heard, now: datetime) -> Link:
    """How a device is linked: cut, when the broker or it itself said so, or when the federation keeps it out; silent,
    when it has said nothing since the aggregator began, or tells how it is but has not for `SILENT_S`."""
    if device.state == "unknown":
        return "silent"
    if device.state not in HERE:
        return "cut"
    return "silent" if device.told and _older(max(device.told, device.last_seen), SILENT_S, now) else "connected"


def rows_of(found: Sequence[Node]) -> int:
    """How many rows the picture has."""
    return 2 + max(-(-sum(node.kind == "device" for node in found) // ACROSS), 1)


def marks(found: Sequence[Node]) -> dict[str, list[Any]]:
    """Nodes, their words, and lines between them, as columns: x from 0 to 1, y in rows from above."""
    names = ("mark", "kind", "name", "word", "link", "x", "y", "x2", "y2")
    rows = list(_lines(found))
    for node, x, y in places(found):
        name, word = (y - 0.38, y - 0.22) if y == 0 else (y + 0.22, y + 0.38)
        for mark, at in (("node", y), ("name", name), ("word", word)):
            rows.append((mark, node.kind, node.name, node.word, node.link, x, at, x, at))
    return {name: [row[n] for row in rows] for n, name in enumerate(names)}


def places(found: Sequence[Node]) -> Iterator[tuple[Node, float, float]]:
    """Where each node is."""
    by_kind = {kind: [node for node in found if node.kind == kind] for kind in KINDS}
    for node in by_kind["broker"]:
        yield node, MIDDLE, 1.0
    for node in by_kind["aggregator"]:
        yield node, LEFT, 0.0
    for n, node in enumerate(by_kind["operator"]):
        yield node, RIGHT - 0.25 * n, 0.0
    for n, node in enumerate(by_kind["bridge"]):
        yield node, (RIGHT, LEFT)[n], 1.0
    across = min(ACROSS, max(len(by_kind["device"]), 1))
    for n, node in enumerate(by_kind["device"]):
        yield node, (n % across + 0.5) / across, 2.0 + n // across


def _lines(found: Sequence[Node]) -> Iterator[tuple[Any, ...]]:
    rows: dict[float, list[float]] = {}
    for node, x, y in places(found):
        if node.kind == "device":
            yield "line", node.kind, node.name, node.word, node.link, x, y, x, y - ABOVE
            rows.setdefault(y - ABOVE, [MIDDLE] if y == 2 else [TRUNK]).append(x)
        elif node.kind != "broker":
            yield "line", node.kind, node.name, node.word, node.link, x, y, MIDDLE, 1.0
    if rows:
        first, last = min(rows), max(rows)
        yield _bus(MIDDLE, first - 0.1, MIDDLE, first)
        if last > first:
            yield _bus(TRUNK, first, TRUNK, last)
            rows[first].append(TRUNK)
    for y, ends in rows.items():
        yield _bus(min(ends), y, max(ends), y)


def _bus(x: float, y: float, x2: float, y2: float) -> tuple[Any, ...]:
    return "bus", "broker", "", "", "connected", x, y, x2, y2


def _broker(address: str, broker: BrokerFigures, now: datetime) -> Node:
    if broker.heard is None:
        return Node("broker", f"broker {address}", "silent", "no figures of its own")
    silent = _older(broker.heard, BROKER_SILENT_S, now)
    return Node(
        "broker",
        f"broker {address}",
        "silent" if silent else "connected",
        "silent" if silent else "up",
        1,
        broker.heard,
    )


def _aggregator(lineage: str, running: bool | None, broker: BrokerFigures, now: datetime) -> Node:
    if running is False:
        return Node("aggregator", f"aggregator {lineage}", "cut", "not running", 1, broker.heard)
    known = broker.heard is not None or running
    link: Link = "connected" if known and not _older(broker.heard, BROKER_SILENT_S, now) else "silent"
    return Node("aggregator", f"aggregator {lineage}", link, "running" if running else link, 1, broker.heard)


def _operators(operators: Sequence[Operator], now: datetime) -> Iterator[Node]:
    if len(operators) > OTHERS:
        newest = max(operator.last_seen for operator in operators)
        yield Node(
            "operator",
            f"{len(operators):,} operators",
            _lately(newest, now),
            "steer now and then",
            len(operators),
            newest,
        )
        return
    for one in operators:
        link = _lately(one.last_seen, now)
        yield Node(
            "operator",
            f"operator {one.operator}",
            link,
            "steers" if link == "connected" else "silent",
            1,
            one.last_seen,
        )


def _lately(time: str, now: datetime) -> Link:
    return "silent" if _older(time, OPERATOR_S, now) else "connected"


def _bridges(broker: BrokerFigures) -> Iterator[Node]:
    up = sum(broker.bridges.values())
    if len(broker.bridges) > OTHERS:
        link: Link = "connected" if up == len(broker.bridges) else "cut"
        yield Node(
            "bridge", f"{len(broker.bridges):,} bridges", link, f"{up:,} connected", len(broker.bridges), broker.heard
        )
        return
    for name, stands in broker.bridges.items():
        yield Node(
            "bridge",
            f"bridge {name}",
            "connected" if stands else "cut",
            "connected" if stands else "cut",
            1,
            broker.heard,
        )


def _devices(devices: Sequence[Heard], now: datetime) -> Iterator[Node]:
    if len(devices) <= ONE_BY_ONE:
        for one in devices:
            link = link_of(one, now)
            word = "silent" if link == "silent" else one.state
            yield Node("device", one.device, link, word, 1, max(one.last_seen, one.told or ""))
        return
    found = Counter((link_of(one, now), one.state) for one in devices)
    for (link, state), count in sorted(found.items(), key=lambda item: (LINKS.index(item[0][0]), item[0][1])):
        yield Node("device", f"{count:,} devices", link, state if link != "silent" else f"silent, {state}", count)


def _older(time: str | None, seconds: float, now: datetime) -> bool:
    return time is not None and (now - datetime.fromisoformat(time).astimezone(UTC)).total_seconds() > seconds
