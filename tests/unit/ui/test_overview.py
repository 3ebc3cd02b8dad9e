"""The open round in a sentence: what is counted is what the rows say, at the same moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ui.pages.overview import progress, round_words, wrong_words
from ui.queries.events import Page
from ui.queries.standing import Now, Round, Standing

T0 = "2026-11-22T10:00:00.000Z"
STANDS = Standing(1, 3, "train", "open", "", 9, 4, 3, 3, "{}", "2026-11-22T10:10:00.000Z", T0, T0)
OPEN = Round(1, 3, "train", "open", ("a", "b", "c", "d"), T0, None, None)


@pytest.mark.parametrize(
    ("standing", "round_", "done", "minutes", "text", "part"),
    [
        (STANDS, OPEN, 0, 0, "0 of 4 devices are done; quorum 3, 3 missing; deadline in 10 min 0 s.", 0.0),
        (STANDS, OPEN, 2, 0, "2 of 4 devices are done; quorum 3, 1 missing; deadline in 10 min 0 s.", 2 / 3),
        (STANDS, OPEN, 4, 12, "4 of 4 devices are done; quorum 3, reached; the deadline was 2 min 0 s ago.", 1.0),
        (replace(STANDS, round=2), OPEN, 1, 0, "1 of 4 devices are done; the round has just opened.", 0.0),
        (None, OPEN, 1, 0, "1 of 4 devices are done; the round has just opened.", 0.0),
        (replace(STANDS, round=4, stage="waiting"), replace(OPEN, state="closed"), 3, 0,
         "3 of 4 devices are done; the round is closed.", 1.0),
        (STANDS, None, 0, 0, "No round has been opened yet.", 0.0),
    ],
)  # fmt: skip
def test_the_open_round_is_a_sentence(
    standing: Standing | None, round_: Round | None, done: int, minutes: int, text: str, part: float
) -> None:
    at = Now(standing, round_, (), {}, {})
    moment = datetime.fromisoformat(f"2026-11-22T10:{minutes:02}:00.000Z")
    assert progress(at, done, moment) == (text, pytest.approx(part))


def test_the_round_is_the_newest_that_was_opened() -> None:
    assert round_words(Now(replace(STANDS, round=2), OPEN, (), {}, {})) == ("Round (of 9)", "3")


def test_where_not_the_whole_log_was_looked_through_nothing_is_said_of_the_rest() -> None:
    assert wrong_words(Page((), None, None), UTC) == "Nothing: no warning and no error in the log."
    assert "no error since 2026-11-22 10:00:00" in wrong_words(Page((), None, T0), UTC)
