"""Who belongs, on the Control page: invite, let in, turn down, turn out, by `floe invite` and `floe devices`."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from floe import qr
from floe.errors import ConfigError
from ui.parts.asked import ask, asked, follow
from ui.parts.browser import zone, zone_name
from ui.parts.text import plain

LIST, INVITE, CHANGE = "list of devices", "invitation", "devices"
REFRESH = (LIST, "devices", "list", "--json")
ROWS = "rows of the list"
REQUESTS = 20  # shown at once


@dataclass(frozen=True)
class Row:
    """A device or a request, as `floe devices list --json` has it; `time` in seconds of UTC, `number` of a request."""

    name: str
    state: str
    version: int
    time: int
    fingerprint: str
    number: str

    @property
    def spaced(self) -> str:
        return f"{self.number[:3]} {self.number[3:]}"


def rows_in(stdout: str) -> list[Row]:
    """What `floe devices list --json` printed."""
    found = [json.loads(line) for line in stdout.splitlines()]
    return [Row(**{name: row[name] for name in Row.__dataclass_fields__}) for row in found]


def draw(*, may_steer: bool) -> None:
    """Invitation, requests, members. All of it needs the operator's key."""
    if not may_steer:
        st.text("Who belongs is asked of the aggregator in an operator's name: see above.")
        return
    _invite()
    _list()


def _invite() -> None:
    with st.form("invite"):
        name = st.text_input(
            "Name of the device", help="[a-z0-9_-], at most 64; empty: whoever has the code chooses it"
        )
        hours = st.number_input("Hours that the code is good for", 0.01, 8760.0, 24.0)
        if st.form_submit_button("Invite", icon=":material/qr_code:"):
            ask(
                INVITE, "invite", "--json", f"--hours={hours}", *((f"--device={name.strip()}",) if name.strip() else ())
            )
    job = asked(INVITE)
    if job is None or job.answer is None or not job.answer.done:
        follow(INVITE)
        return
    _code(json.loads(job.answer.stdout))
    if job.answer.stderr.strip():
        st.text(job.answer.stderr.strip())


def _code(invited: dict[str, Any]) -> None:
    until = datetime.fromtimestamp(invited["expires"], UTC).astimezone(zone())
    st.text(
        f"For {invited['device'] or 'one device'}, until {until:%Y-%m-%d %H:%M} ({zone_name()}). There: floe join CODE"
    )
    st.code(invited["code"], language=None, wrap_lines=True)
    try:
        picture = base64.b64encode(qr.picture(invited["code"], "png")).decode()
        # In the page itself: a file that Streamlit keeps of it is gone when another part is drawn without it.
        st.image(f"data:image/png;base64,{picture}", width=320)
    except ConfigError as error:
        st.text(str(error))


def _list() -> None:
    if st.button("Refresh the list", icon=":material/refresh:"):
        ask(*REFRESH)
    follow(CHANGE, *REFRESH)
    job = asked(LIST)
    if job is not None and job.answer is not None and job.answer.done:
        st.session_state[ROWS] = rows_in(job.answer.stdout)
    else:
        follow(LIST)
    rows = st.session_state.get(ROWS)
    if rows is not None:
        _requests([row for row in rows if row.state in ("pending", "rotating")])
        _table(rows)
        _change(sorted({row.name for row in rows if row.state == "approved"}))


def _requests(rows: list[Row]) -> None:
    for row in rows[:REQUESTS]:
        with st.container(border=True):
            _request(row)
    if len(rows) > REQUESTS:
        st.text(f"{len(rows) - REQUESTS} more ask; they are shown when these are answered.")


def _request(row: Row) -> None:
    key = f"{row.name} {row.state} {row.number} {row.fingerprint}"
    if row.state == "pending":
        asked_at = datetime.fromtimestamp(row.time, UTC).astimezone(zone())
        st.text(f"{row.name} asks to be let in, since {asked_at:%Y-%m-%d %H:%M} ({zone_name()}). Its number:")
        st.code(row.spaced, language=None)
        same = st.checkbox("I have looked: the device shows this number", key=f"same {key}")
        number = [f"--number={row.number}"]
    else:
        st.text(f"{row.name} asks for other keys, because an operator has asked for them.")
        same = st.checkbox("That was me, or an operator whom I know", key=f"same {key}")
        number = []
    yes, no = st.columns(2)
    yes.button(
        "Approve", key=f"approve {key}", icon=":material/check:", disabled=not same, width="stretch",
        on_click=ask, args=(CHANGE, "devices", "approve", *number, "--", row.name),
    )  # fmt: skip
    no.button(
        "Reject", key=f"reject {key}", icon=":material/close:", width="stretch",
        on_click=ask, args=(CHANGE, "devices", "reject", "--", row.name),
    )  # fmt: skip


def _table(rows: list[Row]) -> None:
    if not rows:
        st.text("No devices yet: a code, made above, lets one ask.")
        return
    st.dataframe(
        {
            "name": [row.name for row in rows],
            "state": [row.state for row in rows],
            "version": [row.version or None for row in rows],
            "fingerprint": [row.fingerprint for row in rows],
        },
        hide_index=True,
    )


def _change(names: list[str]) -> None:
    if not names:
        return
    with st.form("change"):
        name = st.selectbox("Member", names)
        st.caption("Revoke: nothing of it counts any more. Rotate: it makes other keys, and asks for them here.")
        typed = st.text_input("To revoke it, type its name")
        revoke, rotate = st.columns(2)
        if revoke.form_submit_button("Revoke", icon=":material/person_remove:", width="stretch"):
            if typed.strip() == name:
                ask(CHANGE, "devices", "revoke", "--", name)
                st.rerun()
            st.error(plain(f"Not revoked: the name that was typed is not {name}."))
        if rotate.form_submit_button("Rotate", icon=":material/key:", width="stretch"):
            ask(CHANGE, "devices", "rotate", "--", name)
            st.rerun()
