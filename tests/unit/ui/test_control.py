"""Control without a browser: which command makes sense when, what of a form is sent, what a list is read as."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from floe.errors import ConfigError
from floe.plan import Plan
from ui.parts.members import rows_in
from ui.parts.plan_form import changes, text_of
from ui.parts.steering import ACTIONS, makes_sense, words
from ui.queries.standing import Standing

PLAN = Plan(hidden=(24, 12), epochs=5)


def standing(stage: str, held: str = "") -> Standing:
    return Standing(1, 3, "train", stage, held, 10, 2, 1, 2, "{}", None, *(["2026-11-22T09:00:00.000Z"] * 2))


@pytest.mark.parametrize(
    ("now", "rounds", "sensible"),
    [
        (None, 5, set()),
        (standing("waiting"), 0, {"start", "pause", "stop"}),
        (standing("open"), 0, {"pause", "stop"}),
        (standing("open"), 5, {"start", "pause", "stop"}),
        (standing("open", "paused"), 0, {"start", "resume", "stop"}),
        (standing("waiting", "stopped"), 0, {"start"}),
        (standing("finished"), 0, {"start"}),
    ],
)
def test_a_command_makes_sense_where_it_changes_something(
    now: Standing | None, rounds: int, sensible: set[str]
) -> None:
    assert {action.name for action in ACTIONS if makes_sense(action.name, now, rounds)} == sensible


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (standing("waiting"), "Waiting with train 3 of 10 for 1 device(s)."),
        (standing("open"), "train 3 of 10 is open: 1 update(s) missing."),
        (standing("open", "paused"), "train 3 of 10 is open, then paused."),
        (standing("waiting", "stopped"), "Stopped before train 3 of 10."),
        (standing("finished"), "All is done: 3 rounds."),
    ],
)
def test_where_the_rounds_stand_is_a_sentence(now: Standing, said: str) -> None:
    assert words(now) == said


def given(**changed: str) -> dict[str, str]:
    return {name: text_of(getattr(PLAN, name)) for name in Plan.__struct_fields__} | changed


def test_a_form_that_was_not_touched_changes_nothing() -> None:
    assert changes(PLAN, given()) == {}


def test_only_what_differs_is_sent() -> None:
    assert changes(PLAN, given(epochs="3", hidden=" 8 ,4", learning_rate="1e-3")) == {"epochs": "3", "hidden": "8,4"}


def test_a_list_can_be_emptied() -> None:
    assert changes(PLAN, given(hidden="")) == {"hidden": ""}


@pytest.mark.parametrize(("name", "text"), [("epochs", "0"), ("learning_rate", "nan"), ("model", "../x"), ("mu", "")])
def test_what_is_not_allowed_is_named_as_the_configuration_names_it(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=name) as refused:
        changes(PLAN, given(**{name: text}))
    assert "allowed is" in str(refused.value)


def test_a_list_of_devices_is_read_line_by_line() -> None:
    line = {
        "name": "a",
        "state": "pending",
        "version": 0,
        "time": 1,
        "fingerprint": "f",
        "number": "123456",
        "keys": {},
    }
    (row,) = rows_in(json.dumps(line) + "\n")
    assert (row.name, row.spaced) == ("a", "123 456")


def test_the_list_of_devices_has_no_column_that_is_empty_for_all_members() -> None:
    def script() -> None:
        from ui.parts import members

        members._table([members.Row("a", "approved", 3, 0, "f", ""), members.Row("b", "revoked", 4, 0, "g", "")])

    drawn = AppTest.from_function(script, default_timeout=60).run()
    assert not drawn.exception
    shown = drawn.dataframe[0].value
    assert len(shown) == 2
    assert not [name for name in shown.columns if not any(shown[name])]
