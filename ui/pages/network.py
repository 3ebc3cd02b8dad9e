"""Network: who is linked with whom, as a picture and as a table; how the broker and the aggregator's machine are."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import streamlit as st

from ui.parts import charts, grid, topology
from ui.parts.browser import zone
from ui.parts.figures import figures
from ui.parts.live import live
from ui.parts.text import NOTHING, duration, moment, size
from ui.parts.topology import Node
from ui.queries import network, vitals
from ui.queries.network import BrokerFigures, number_of
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


def _picture(db: sqlite3.Connection) -> None:
    settings, now = config(), datetime.now(UTC)
    found = topology.nodes(
        address=f"{settings.mqtt.host}:{settings.mqtt.port}",
        lineage=settings.rounds.lineage,
        running=is_aggregator_running(settings),
        broker=network.broker_figures(vitals.broker(db)),
        devices=network.devices(db),
        operators=network.operators(db),
        now=now,
    )
    rows = topology.rows_of(found)
    described = f"the network: {_counted(found)}"
    charts.network(
        f"network {rows}",
        topology.marks(found),
        rows,
        topology.ACROSS,
        kinds=topology.KINDS,
        links=topology.LINKS,
        alt=described,
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
    with st.container(key="links"):
        st.dataframe(columns, hide_index=True, height=grid.height(len(found), TABLE_HEIGHT))


def _broker(db: sqlite3.Connection) -> None:
    found = vitals.broker(db)
    st.subheader("Broker")
    if not found:
        st.caption("The broker has told nothing of itself yet ($SYS).")
    told = network.broker_figures(found)
    figures(broker_words(told), "broker")
    mqtt = config().mqtt
    safe = "TLS" if mqtt.tls else "without TLS"
    version = told.version or "version not known"
    st.text(f"{mqtt.host}:{mqtt.port}, {safe}; {version}; last heard {moment(told.heard, zone())}")


def broker_words(told: BrokerFigures) -> tuple[tuple[str, str], ...]:
    """What the broker says of itself: eight figures with their units."""
    up = sum(told.bridges.values())
    return (
        ("Clients connected", _count(told.clients)),
        ("Messages in per min", _count(told.received_per_min)),
        ("Messages out per min", _count(told.sent_per_min)),
        ("Messages dropped", _count(told.dropped)),
        ("Running for", _uptime(told)),
        ("Bytes in per min", size(number_of(told.received_bytes_per_min))),
        ("Bytes out per min", size(number_of(told.sent_bytes_per_min))),
        ("Bridges connected", f"{up:,} of {len(told.bridges):,}" if told.bridges else NOTHING),
    )


def _machine(db: sqlite3.Connection) -> None:
    member = f"lineage/{config().rounds.lineage}"
    found = vitals.history(db, member)
    st.subheader("Aggregator's machine")
    figures(machine_words(found[-1] if found else None), "machine")
    ago = [(_minutes(one.time, found[-1].time), one) for one in found]
    series = {
        "processor": [(minutes, one.cpu_percent) for minutes, one in ago],
        "memory": [(minutes, one.memory_percent) for minutes, one in ago],
    }
    if not charts.lines(
        "machine", series, x="minutes from the newest report", y="percent of the machine", form="d", unit=" %"
    ):
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


def _minutes(time: str, newest: str) -> float:
    return (datetime.fromisoformat(time) - datetime.fromisoformat(newest)).total_seconds() / 60


def _uptime(told: BrokerFigures) -> str:
    seconds = told.uptime.split(" ")[0]
    return duration(float(seconds)) if seconds.isdigit() else NOTHING


def _count(text: str) -> str:
    value = number_of(text)
    return NOTHING if value is None else f"{value:,.0f}"
