"""Models: the registry; select a version for who made it, its file and to make it the present one, two to compare."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import streamlit as st

from floe.errors import DataError
from ui import model_files
from ui.commands import may_steer
from ui.parts import grid
from ui.parts.asked import ask, follow
from ui.parts.browser import zone_name
from ui.parts.live import live, once
from ui.parts.text import NOTHING, number, plain, share, size
from ui.queries import models as queries
from ui.serving import config

TABLE, CHOSEN, SURE, PLACE = "models", "models chosen", "model to promote", "promotion"
MOST_BYTES = 50_000_000  # of a file that the browser is given: it stays in the page's memory while it is offered
PRESENT = "present"


def show() -> None:
    """Draw the page."""
    st.title("Models")
    live(_registry)
    once(partial(_chosen, names=st.session_state.get(CHOSEN, [])))
    follow(PLACE)


def _registry(db: sqlite3.Connection) -> None:
    found = queries.registry(db, config().rounds.lineage)
    if found.present is None:
        st.info("No global model yet: the first one is made when the first round closes.")
        return
    why = "an operator chose it" if found.promoted else "it is the newest"
    st.caption(
        f"{len(found.models):,} versions. The next round starts from {plain(_name(found.present))}: {why}. Figures are "
        "of the test rows of the devices that started from a version: those of the newest come with the next round. "
        f"Times: {plain(zone_name())}."
    )
    grid.pick(TABLE, lambda: _columns(found), _take, several=True)


def _columns(found: queries.Registry) -> dict[str, tuple[grid.Kind, list[object]]]:
    rows = found.models
    return {
        "Version": ("text", [_name(one) for one in rows]),
        "Present": ("text", [PRESENT if one == found.present else "" for one in rows]),
        "SHA-256": ("hash", [one.sha256 for one in rows]),
        "Loss": ("number", [one.loss for one in rows]),
        "Accuracy (%)": ("percent", [one.accuracy for one in rows]),
        "ROC-AUC": ("number", [one.roc_auc for one in rows]),
        "Devices": ("whole", [one.devices for one in rows]),
        "Training rows": ("whole", [one.samples for one in rows]),
        "Test rows": ("whole", [one.test_samples for one in rows]),
        "Size (kB)": ("kB", [one.bytes for one in rows]),
        "Made": ("time", [one.created_at for one in rows]),
    }


def _take(chosen: list[str]) -> None:
    """What is selected is drawn below, once: a file that is offered there must stay the one that was offered."""
    st.caption("Select a version to see who made it, two to compare them." if not chosen else ", ".join(chosen))
    if chosen != st.session_state.get(CHOSEN, []):
        st.session_state[CHOSEN] = chosen
        st.rerun()


def _name(model: queries.Model) -> str:
    return f"round {model.round}" if model.epoch == 1 else f"round {model.round} of epoch {model.epoch}"


def _chosen(db: sqlite3.Connection, names: list[str]) -> None:
    found = queries.registry(db, config().rounds.lineage)
    by_name = {_name(one): one for one in found.models}
    models = [by_name[name] for name in names if name in by_name]
    if len(models) == 1:
        _one(db, found, models[0])
    elif len(models) == 2:
        _compare(db, *sorted(models, key=lambda one: (one.epoch, one.round)))
    elif models:
        st.info("Two versions can be compared, not more: unselect some.")


def _one(db: sqlite3.Connection, found: queries.Registry, model: queries.Model) -> None:
    st.subheader(f"Global model of {_name(model)}")
    st.code(f"SHA-256 {model.sha256}\n{_path(model)}", language=None, wrap_lines=True)
    left, right = st.columns(2)
    with left:
        _download(model)
    with right:
        _promotion(found, model)
    given = queries.contributors(db, config().rounds.lineage, model)
    if not given:
        st.caption("No update of a device is in it: it is where training began, or its round repeats the one before.")
        return
    late = sum(one.round != model.round for one in given)
    st.caption(f"Made of {len(given):,} updates" + (f", {late:,} of them late." if late else "."))
    grid.draw(
        "contributors",
        {
            "Device": ("text", [one.device for one in given]),
            "Weight (%)": ("percent", [one.weight for one in given]),
            "Late": ("text", ["" if one.round == model.round else f"▲ of round {one.round}" for one in given]),
            "Samples": ("whole", [one.samples for one in given]),
            "Its loss": ("number", [one.loss for one in given]),
            "Its accuracy (%)": ("percent", [one.accuracy for one in given]),
            "Its ROC-AUC": ("number", [one.roc_auc for one in given]),
            "Accuracy before (%)": ("percent", [one.base_accuracy for one in given]),
            "Size (kB)": ("kB", [one.bytes for one in given]),
            "Seconds": ("number", [one.seconds for one in given]),
            "Came": ("time", [one.time for one in given]),
        },
        height=grid.height(len(given)),
    )


def _download(model: queries.Model) -> None:
    path = _path(model)
    if fault := model_files.fault_of(path, model.sha256, model.bytes):
        st.error(plain(fault))
    elif model.bytes > MOST_BYTES:
        st.text(f"{size(model.bytes)} are too much for a browser by way of this page. On this machine:")
        st.code(f"floe models export {model.round} --epoch {model.epoch} --to model.safetensors", language=None)
    else:
        st.download_button(
            f"Download, {plain(size(model.bytes))}",
            model_files.content(path, model.sha256, model.bytes),
            file_name=f"{config().rounds.lineage}-{model.epoch}-{model.round}.safetensors",
            mime="application/octet-stream",
            key="download model",
            icon=":material/download:",
            on_click="ignore",
        )
        st.caption("safetensors: weights and, as scaling.mean and scaling.scale, the scaling of the features.")


def _promotion(found: queries.Registry, model: queries.Model) -> None:
    if model == found.present:
        st.caption("It is the present one: the next round starts from it.")
    elif why := may_steer(config()):
        st.caption(plain(f"For reading only: {why}"))
    elif found.present is not None and model.epoch != found.present.epoch:
        st.caption("It is of an earlier epoch: only the models of the newest one can be the present one.")
    elif st.session_state.get(SURE) != model.sha256:
        if st.button("Make it the present one ...", key="promote", icon=":material/published_with_changes:"):
            st.session_state[SURE] = model.sha256
            st.rerun()
    else:
        _ask_again(found, model)


def _ask_again(found: queries.Registry, model: queries.Model) -> None:
    present = found.present
    assert present is not None
    st.warning(
        f"The next round will start from {_name(model)} (accuracy {plain(share(model.accuracy))}), not from "
        f"{_name(present)} ({plain(share(present.accuracy))}). What was trained since is not in it; nothing is deleted."
    )
    with st.container(horizontal=True):
        if st.button(f"Yes, {_name(model)}", key="promote yes", type="primary"):
            del st.session_state[SURE]
            ask(PLACE, "models", "promote", model.sha256)
            st.rerun()
        if st.button("No", key="promote no"):
            del st.session_state[SURE]
            st.rerun()


def _compare(db: sqlite3.Connection, first: queries.Model, second: queries.Model) -> None:
    titles = _name(first), _name(second)
    st.subheader(f"{titles[0]} and {titles[1]}")
    if not _comparable(first, second):
        st.warning(
            "They were not measured on the same number of test rows: some of the change in loss, accuracy and ROC-AUC "
            "may come from the rows.",
            icon=":material/warning:",
        )
    _table("compared figures", ("Figure", *titles, "Change"), compared(first, second))
    _compare_plans(db, first, second)
    _compare_tensors(first, second)


def compared(first: queries.Model, second: queries.Model) -> list[tuple[str, ...]]:
    """The figures of two models in words, and what has changed from one to the other."""
    tested = (NOTHING if one is None else f"{one:,}" for one in (first.test_samples, second.test_samples))
    return [
        ("Loss", number(first.loss), number(second.loss), _change(first.loss, second.loss, "+.4f")),
        ("Accuracy", share(first.accuracy), share(second.accuracy), _change(first.accuracy, second.accuracy, "points")),
        ("ROC-AUC", number(first.roc_auc), number(second.roc_auc), _change(first.roc_auc, second.roc_auc, "+.4f")),
        ("Test rows", *tested, "" if _comparable(first, second) else "▲ not the same"),
        ("Devices", f"{first.devices:,}", f"{second.devices:,}", f"{second.devices - first.devices:+,}"),
        ("Training rows", f"{first.samples:,}", f"{second.samples:,}", f"{second.samples - first.samples:+,}"),
        ("Size", size(first.bytes), size(second.bytes), ""),
        ("SHA-256", first.sha256, second.sha256, ""),
    ]


def _compare_plans(db: sqlite3.Connection, first: queries.Model, second: queries.Model) -> None:
    plans = [queries.plan(db, config().rounds.lineage, one) for one in (first, second)]
    rows = [
        (name, *(str(plan.get(name, NOTHING)) for plan in plans))
        for name in dict.fromkeys([*plans[0], *plans[1]])
        if plans[0].get(name) != plans[1].get(name)
    ]
    if not rows:
        st.caption("Their rounds had the same training plan.")
        return
    st.caption("What was different in the training plans of their rounds")
    _table("compared plans", ("Key", _name(first), _name(second)), rows)


def _compare_tensors(first: queries.Model, second: queries.Model) -> None:
    try:
        found = model_files.differences(*((_path(one), one.sha256, one.bytes) for one in (first, second)))
    except DataError as error:
        st.error(plain(str(error)))
        return
    st.caption(
        "How far the weights are apart: length of the difference, as a share of the first one's, largest number."
    )
    grid.draw(
        "compared tensors",
        {
            "Tensor": ("text", [one.name for one in found]),
            "Shape": ("text", [" x ".join(map(str, one.shape)) or "one number" for one in found]),
            "Distance (L2)": ("fine", [one.distance for one in found]),
            "Relative (%)": ("percent", [one.relative for one in found]),
            "Largest": ("fine", [one.largest for one in found]),
            "Note": ("text", [one.note for one in found]),
        },
        height=grid.height(len(found)),
    )


def _table(key: str, titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    columns: dict[str, tuple[grid.Kind, list[str]]] = {
        title: ("text", list(values)) for title, values in zip(titles, zip(*rows, strict=True), strict=True)
    }
    grid.draw(key, columns, height=grid.height(len(rows)))


def _comparable(first: queries.Model, second: queries.Model) -> bool:
    """Whether two were measured on as many test rows as each other, as far as they were measured."""
    return None in (first.test_samples, second.test_samples) or first.test_samples == second.test_samples


def _change(first: float | None, second: float | None, form: str) -> str:
    if first is None or second is None:
        return NOTHING
    return f"{100 * (second - first):+.1f} points" if form == "points" else format(second - first, form)


def _path(model: queries.Model) -> Path:
    return config().path(config().paths.models) / model.file
