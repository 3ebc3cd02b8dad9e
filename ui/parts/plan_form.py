"""The training plan on the Control page: a form made from the fields of `floe.plan.Plan`, sent by `floe plan set`."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import streamlit as st

from floe.config import value_of
from floe.errors import ConfigError
from floe.plan import Plan
from floe.settings import bare, describe
from ui.parts.asked import ask
from ui.parts.text import plain
from ui.queries.rows import decoded
from ui.queries.standing import standing
from ui.serving import config

PLACE = "plan"
HINTS = get_type_hints(Plan, include_extras=True)


def text_of(value: Any) -> str:
    """A value as one types it: a list with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def changes(plan: Plan, given: dict[str, str]) -> dict[str, str]:
    """What of a form differs from a plan, as one types it. Raises `ConfigError` for what is not allowed."""
    found = {name: value_of("plan", name, text, f"[plan] {name}") for name, text in given.items()}
    return {name: text_of(value) for name, value in found.items() if value != getattr(plan, name)}


def draw(db: sqlite3.Connection, *, may_steer: bool) -> None:
    """The form, filled with the plan in force: what a round opens with from now on."""
    now = standing(db, config().rounds.lineage)
    plan = decoded(now.plan, Plan, "standing.plan") if now else config().plan
    # What is typed belongs to the plan that it was typed over: another plan is another form.
    form = f"plan {msgspec.json.encode(plan).hex()}"
    with st.form(form, border=False):
        columns = st.columns(3)
        given = {
            name: _field(columns[at % 3], f"{form} {name}", name, getattr(plan, name), disabled=not may_steer)
            for at, name in enumerate(Plan.__struct_fields__)
        }
        if st.form_submit_button("Send to the aggregator", disabled=not may_steer):
            _send(plan, given)


def _field(column: Any, key: str, name: str, value: Any, *, disabled: bool) -> str:
    meaning, limits, _ = describe("plan", name)
    kind, about = bare(HINTS[name]), plain(f"{meaning}: {limits}")
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        at = choices.index(value)
        return str(column.selectbox(name, choices, at, key=key, help=about, disabled=disabled))
    return str(column.text_input(name, text_of(value), key=key, help=about, disabled=disabled))


def _send(plan: Plan, given: dict[str, str]) -> None:
    try:
        different = changes(plan, given)
    except ConfigError as error:
        st.error(plain(str(error)))
        return
    if different:
        ask(PLACE, "plan", "set", *(f"{name}={value}" for name, value in different.items()))
    else:
        st.info("Nothing differs from the plan in force.")
