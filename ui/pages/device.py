"""One device: how it is, its rounds, its machine, what it says, and what it is known by. At /devices?device=NAME."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import streamlit as st

from floe import privacy
from floe.devices import fingerprint
from ui.parts import charts, grid
from ui.parts.browser import zone, zone_name
from ui.parts.endings import ended_words, missed_words
from ui.parts.live import live
from ui.parts.text import NOTHING, ago, duration, moment, number, plain, share, size
from ui.queries import events, fleet, history, vitals
from ui.serving import config

PARAMETER = "device"
LINES = 100  # of its log that are shown
SHOWN = 200  # rounds in the table
KEPT = "rounds of a device"
MACHINE = 220  # pixels of a chart


def show(name: str) -> None:
    """Draw the page of a device, whatever name an address gives."""
    if st.button("All devices", key="all devices", icon=":material/arrow_back:"):
        del st.query_params[PARAMETER]
        st.rerun()
    st.title(plain(name))
    live(partial(_about, name=name))
    st.subheader("Rounds")
    live(partial(_rounds, name=name))
    st.subheader("Its machine")
    live(partial(_machine, name=name))
    st.subheader("What it says, and what is said of it")
    live(partial(_lines, name=name))


def _about(db: sqlite3.Connection, name: str) -> None:
    device = fleet.device(db, name)
    if device is None:
        st.warning(plain(f"The log has no device {name!r}."))
        return
    lineage = config().rounds.lineage
    last = fleet.last_round(db, lineage, name)
    left, right = st.columns(2)
    with left:
        st.caption(f"Now (times: {plain(zone_name())})")
        _facts("device now", _now(device, last, fleet.rounds_of_models(db, lineage)))
    with right:
        st.caption("What it is known by")
        _facts("device papers", _known_by(history.papers(db, name)))
    if refused := history.refusals(db, name):
        st.caption("Messages of it that were refused")
        grid.draw(
            "device refusals",
            {
                "Reason": ("text", [one.reason for one in refused]),
                "Times": ("whole", [one.count for one in refused]),
                "First": ("time", [one.first for one in refused]),
                "Last": ("time", [one.last for one in refused]),
            },
            height=grid.height(len(refused), 150),
        )


def _now(device: fleet.Device, last: fleet.LastRound | None, versions: dict[str, int]) -> dict[str, str]:
    seen = f"{moment(device.last_seen, zone())} ({ago(device.last_seen, datetime.now(UTC))})"
    ended = missed_words(last.of(device.device), device, zone()) if last else NOTHING
    held = versions.get(device.model_sha256 or "")
    return {
        "State": device.state + (f", {device.task} {device.round}" if device.task is not None else ""),
        "Last seen": seen,
        "First seen": moment(device.first_seen, zone()),
        f"Train round {last.round}" if last else "Last train round": ended,
        "Rounds taken part in": f"{device.rounds:,}",
        "Accuracy": share(device.accuracy),
        "Threshold": number(device.threshold),
        "Privacy spent": _privacy(device),
        "Samples": NOTHING if device.samples is None else f"{device.samples:,}",
        "Bytes sent": size(device.bytes),
        "Retries": NOTHING if device.retries is None else f"{device.retries:,}",
        "Model": NOTHING if held is None else f"global model {held}",
        "Software": device.software or NOTHING,
    }


def _privacy(device: fleet.Device) -> str:
    if device.epsilon is None or device.delta is None:
        return NOTHING
    return privacy.words(device.epsilon, "example", device.delta, device.accountant or "")


def _known_by(papers: history.Papers) -> dict[str, str]:
    return {
        "Key": papers.key,
        "Fingerprint": fingerprint(papers.key) if papers.key else NOTHING,
        "Enrolment": papers.state or "no card: the roster does not have it",
        "Card": papers.hash or NOTHING,
        "Version of the roster": NOTHING if papers.version is None else str(papers.version),
        "Suite of its card": papers.suite or NOTHING,
        "Card since": moment(papers.changed_at, zone()),
        "Other keys": "asked for by an operator" if papers.rotate else "not asked for",
        "Request": f"{papers.request}, {_unix(papers.requested_at)}" if papers.request else "none open",
        "Certificate": f"to be renewed from {_unix(papers.renew_at)}" if papers.issuer else "none",
    }


def _facts(key: str, facts: dict[str, str]) -> None:
    columns: dict[str, tuple[grid.Kind, Sequence[str]]] = {
        "What": ("text", list(facts)),
        "Value": ("text", list(facts.values())),
    }
    grid.draw(key, columns, height=grid.height(len(facts), 500))


def _parts(db: sqlite3.Connection, name: str) -> Sequence[history.Part]:
    """Read anew when something is new: whom a round asked are thousands of names."""
    newest = (name, *history.newest(db, config().rounds.lineage, name))
    kept: tuple[object, Sequence[history.Part]] | None = st.session_state.get(KEPT)
    if kept is None or kept[0] != newest:
        kept = newest, history.parts(db, config().rounds.lineage, name)
        st.session_state[KEPT] = kept
    return kept[1]


def _rounds(db: sqlite3.Connection, name: str) -> None:
    parts = _parts(db, name)
    if not parts:
        st.caption("It was in no round yet.")
        return
    _progress(parts)
    shown = parts[:SHOWN]
    st.caption(f"The newest {len(shown)} of its rounds; page Data has all updates (table `updates`, filter `device`).")
    grid.draw(
        "device rounds",
        {
            "Round": ("whole", [one.round for one in shown]),
            "Task": ("text", [one.task for one in shown]),
            "Outcome": ("words", [ended_words(one.ended) for one in shown]),
            "Time": ("time", [one.time for one in shown]),
            "Weight (%)": ("percent", [one.weight for one in shown]),
            "Samples": ("whole", [one.samples for one in shown]),
            "Loss before": ("number", [one.loss_before for one in shown]),
            "Loss after": ("number", [one.loss_after for one in shown]),
            "Accuracy before (%)": ("percent", [one.accuracy_before for one in shown]),
            "Accuracy after (%)": ("percent", [one.accuracy_after for one in shown]),
            "ROC-AUC before": ("number", [one.roc_auc_before for one in shown]),
            "ROC-AUC after": ("number", [one.roc_auc_after for one in shown]),
            "Threshold": ("number", [one.threshold for one in shown]),
            "Epsilon": ("number", [one.epsilon for one in shown]),
            "Size (kB)": ("kB", [one.bytes for one in shown]),
            "Seconds": ("number", [one.seconds for one in shown]),
            "Epoch": ("whole", [one.epoch for one in shown]),
        },
    )


def _progress(parts: Sequence[history.Part]) -> None:
    """Loss, accuracy, ROC-AUC by round of the newest epoch: of the global model here, and of its own after training."""
    trained = [one for one in reversed(parts) if one.task == "train" and one.epoch == parts[0].epoch]

    def line(value: Callable[[history.Part], float | None]) -> list[tuple[float, float | None]]:
        return [(one.round, value(one)) for one in trained]

    st.caption("Before: the global model, after: its own, after training; both on its test rows.")
    before, after = "before", "after"
    places = st.columns(3)
    with places[0]:
        charts.lines(
            "device loss", {before: line(lambda one: one.loss_before), after: line(lambda one: one.loss_after)},
            x="round", y="loss", form=".3~f",
        )  # fmt: skip
    with places[1]:
        charts.lines(
            "device accuracy",
            {before: line(lambda one: one.accuracy_before), after: line(lambda one: one.accuracy_after)},
            x="round", y="accuracy", form=".0%",
        )  # fmt: skip
    with places[2]:
        charts.lines(
            "device auc", {before: line(lambda one: one.roc_auc_before), after: line(lambda one: one.roc_auc_after)},
            x="round", y="ROC-AUC", form=".3~f",
        )  # fmt: skip


def _machine(db: sqlite3.Connection, name: str) -> None:
    reports = vitals.history(db, name)
    if not reports:
        st.caption("It has reported nothing of its machine yet ([device] telemetry_s in its floe.toml; 0: never).")
        return
    newest = reports[-1]
    st.caption(
        f"Newest report: {plain(moment(newest.time, zone()))}. Floe's process: {plain(size(newest.process_bytes))}, up "
        f"{plain(duration(newest.uptime_s))}, {newest.retries or 0} sent again. Disk free: "
        f"{plain(size(newest.disk_free_bytes))}."
    )
    times = [datetime.fromisoformat(one.time) for one in reports]
    figures = {
        "CPU (%)": [one.cpu_percent for one in reports],
        "Memory (%)": [one.memory_percent for one in reports],
        "Disk (%)": [one.disk_percent for one in reports],
        "Network up (kB/s)": [_thousands(one.sent_bytes_s) for one in reports],
        "Network down (kB/s)": [_thousands(one.received_bytes_s) for one in reports],
        "Temperature (°C)": [one.temperature_c for one in reports],
    }
    places = st.columns(3)
    for place, (title, values) in enumerate(figures.items()):
        with places[place % 3]:
            if not charts.over_time(f"device {title}", zip(times, values, strict=True), y=title, height=MACHINE):
                st.caption(f"{title}: not known there.")


def _lines(db: sqlite3.Connection, name: str) -> None:
    entries = events.page(db, events.Filter(device=name), limit=LINES).entries
    if not entries:
        st.caption("Nothing yet.")
        return
    st.caption(f"The newest {LINES}: lines of its own log (journal), and the aggregator's events about it.")
    grid.draw(
        "device lines",
        {
            "Time": ("time", [one.said_at for one in entries]),
            "Level": ("text", [one.level for one in entries]),
            "Kind": ("text", [one.kind for one in entries]),
            "Text": ("text", [one.text for one in entries]),
        },
    )


def _thousands(value: float | None) -> float | None:
    return None if value is None else value / 1000


def _unix(seconds: int | None) -> str:
    return NOTHING if seconds is None else f"{datetime.fromtimestamp(seconds, zone()):%Y-%m-%d %H:%M:%S}"
