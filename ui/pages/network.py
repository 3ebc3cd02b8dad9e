"""Network: who is linked with whom, as a picture and as a table; how the broker and the aggregator's machine are."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from floe.sqlite import Database
from ui.parts import charts, topology
from ui.parts.browser import zone
from ui.parts.live import live
from ui.parts.text import NOTHING, duration, moment, size
from ui.parts.topology import Node
from ui.queries import network, vitals
from ui.queries.network import BrokerFigures
from ui.queries.vitals import Vitals
from ui.reading import is_aggregator_running
from ui.serving import config

SYMBOLS: dict[topology.Link, str] = {"connected": "━ connected", "silent": "╌ silent", "cut": "✖ cut"}
TABLE_HEIGHT = 320


def show() -> None:
    """Draw the page."""
    st.title("Network")
    live(_picture)
    live(_broker)
    live(_machine)


def _picture(db: Database) -> None:
    settings, now = config(), datetime.now(UTC)
    found = topology.nodes(
        address=f"{settings.mqtt.host}:{settings.mqtt.port}",
        lineage=settings.rounds.lineage,
        running=is_aggregator_running(settings),
        broker=network.broker_figures(vitals.broker(db.conn)),
        devices=network.devices(db.conn),
        operators=network.operators(db.conn),
        now=now,
    )
    rows = topology.rows_of(found)
    described = f"the network: {_counted(found)}"
    charts.network(
        f"network {rows}", topology.marks(found), rows, kinds=topology.KINDS, links=topology.LINKS, alt=described
    )
    st.subheader("Links")
    _table(found)


def _counted(found: tuple[Node, ...]) -> str:
    counts = {link: sum(node.count for node in found if node.link == link) for link in topology.LINKS}
    return ", ".join(f"{count:,} {link}" for link, count in counts.items())


def _table(found: tuple[Node, ...]) -> None:
    where = zone()
    columns = {
        "What": [node.kind for node in found],
        "Name": [node.name for node in found],
        "Link to the broker": [SYMBOLS[node.link] if node.kind != "broker" else NOTHING for node in found],
        "State": [node.word for node in found],
        "Last heard": [moment(node.heard, where) for node in found],
    }
    st.dataframe(columns, key="links", hide_index=True, height=TABLE_HEIGHT)


def _broker(db: Database) -> None:
    found = vitals.broker(db.conn)
    st.subheader("Broker")
    if not found:
        st.caption("The broker has told nothing of itself yet ($SYS).")
    figures = network.broker_figures(found)
    _metrics(broker_words(figures))
    mqtt = config().mqtt
    safe = "TLS" if mqtt.tls else "without TLS"
    told = f"{figures.version or 'version not known'}; last heard {moment(figures.heard, zone())}"
    st.text(f"{mqtt.host}:{mqtt.port}, {safe}; {told}")


def _metrics(words: tuple[tuple[str, str], ...]) -> None:
    for row in (words[:4], words[4:]):
        for column, (label, value) in zip(st.columns(4), row, strict=True):
            column.metric(label, value)


def broker_words(figures: BrokerFigures) -> tuple[tuple[str, str], ...]:
    """What the broker says of itself: eight figures with their units."""
    up = sum(figures.bridges.values())
    return (
        ("Clients connected", _count(figures.clients)),
        ("Messages in per min", _count(figures.received_per_min)),
        ("Messages out per min", _count(figures.sent_per_min)),
        ("Messages dropped", _count(figures.dropped)),
        ("Running for", _uptime(figures)),
        ("Bytes in per min", size(_number(figures.received_bytes_per_min))),
        ("Bytes out per min", size(_number(figures.sent_bytes_per_min))),
        ("Bridges connected", f"{up:,} of {len(figures.bridges):,}" if figures.bridges else NOTHING),
    )


def _machine(db: Database) -> None:
    member = f"lineage/{config().rounds.lineage}"
    found = vitals.history(db.conn, member)
    st.subheader("Aggregator's machine")
    _metrics(machine_words(found[-1] if found else None))
    now = datetime.now(UTC)
    ago = [(_minutes(one.time, now), one) for one in found]
    series = {
        "processor": [(minutes, one.cpu_percent) for minutes, one in ago],
        "memory": [(minutes, one.memory_percent) for minutes, one in ago],
    }
    if not charts.lines("machine", series, x="minutes from now", y="percent of the machine", form="d", unit=" %"):
        st.caption("The aggregator has told nothing of its machine yet.")
    elif found:
        st.caption(f"Told {moment(found[-1].time, zone())}.")


def machine_words(one: Vitals | None) -> tuple[tuple[str, str], ...]:
    """How a machine is: eight figures with their units."""
    if one is None:
        one = Vitals("", "", *(None,) * 11)
    return (
        ("Processor", _percent(one.cpu_percent)),
        ("Memory", _percent(one.memory_percent)),
        ("Floe's memory", size(one.process_bytes)),
        ("Running for", duration(one.uptime_s)),
        ("Disk free", size(one.disk_free_bytes)),
        ("Sent per s", size(one.sent_bytes_s)),
        ("Received per s", size(one.received_bytes_s)),
        ("Temperature", NOTHING if one.temperature_c is None else f"{one.temperature_c:.0f} °C"),
    )


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} %"


def _minutes(time: str, now: datetime) -> float:
    return -(now - datetime.fromisoformat(time)).total_seconds() / 60


def _uptime(figures: BrokerFigures) -> str:
    seconds = figures.uptime.split(" ")[0]
    return duration(float(seconds)) if seconds.isdigit() else NOTHING


def _count(text: str) -> str:
    value = _number(text)
    return NOTHING if value is None else f"{value:,.0f}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
