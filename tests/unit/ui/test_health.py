"""Whether the federation is well: every state of the log, the aggregator and the rounds in a word and a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from floe.trouble import MISSING, Trouble
from ui.parts.health import Health, Tone, countdown, health
from ui.queries.pulse import Pulse
from ui.queries.standing import Standing
from ui.reading import Reading

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def before(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


OPEN = Standing(
    epoch=1, round=3, task="train", stage="open", held="", last=10, online=4, needed=2, quorum=3,
    deadline_at=before(-60), changed_at=before(900), seen_at=before(1), plan="{}",
)  # fmt: skip
PULSE = Pulse(begun=True, standing=OPEN, broker_heard=before(5), known=5, here=4)


def of(standing: Standing | None = OPEN, running: bool | None = True, **changed: object) -> Health:
    pulse = replace(PULSE, standing=standing, **changed)  # type: ignore[arg-type]
    return health(Reading(Path("floe.sqlite"), running, None, before(180), pulse), NOW)


def test_a_round_within_its_deadline_is_healthy() -> None:
    assert of() == Health("good", "Healthy", "round 3 of 10; 4 of 5 devices online; last event 3 min ago")


def test_an_aggregator_that_does_not_run_is_told_with_the_last_event() -> None:
    assert of(running=False) == Health("bad", "The aggregator is not running", "last event 3 min ago")


@pytest.mark.parametrize(
    ("changed", "word", "tone", "part"),
    [
        ({"held": "paused"}, "Paused", "note", "until it is resumed"),
        ({"held": "stopped"}, "Stopped", "note", "until it is started"),
        ({"stage": "finished"}, "Finished", "note", "round 3 of 10"),
        ({"stage": "waiting", "online": 1, "needed": 2}, "Waiting for devices", "warning", "1 of 2 devices"),
        ({"stage": "waiting", "online": 2, "needed": 2}, "Healthy", "good", "2 of 2 devices"),
        ({"deadline_at": before(90)}, "Late", "warning", "2 updates missing 2 min after the deadline"),
        ({"deadline_at": before(90), "needed": 0}, "Healthy", "good", "round 3 of 10"),
        ({"deadline_at": None}, "Healthy", "good", "round 3 of 10"),
        ({"seen_at": before(61)}, "Silent", "warning", "the aggregator runs, but it has written nothing for 61 s"),
    ],
)
def test_how_the_rounds_stand_is_told(changed: dict[str, object], word: str, tone: Tone, part: str) -> None:
    found = of(replace(OPEN, **changed))  # type: ignore[arg-type]
    assert (found.word, found.tone) == (word, tone)
    assert part in found.text


def test_a_broker_that_says_nothing_is_told() -> None:
    assert of(broker_heard=before(120)) == Health(
        "warning", "Silent", "nothing was heard of the broker for 2 min; last event 3 min ago"
    )


def test_an_aggregator_elsewhere_is_judged_by_what_it_writes() -> None:
    assert of(running=None).word == "Healthy"
    assert "elsewhere, or not at all" in of(replace(OPEN, seen_at=before(600)), running=None).text


def test_a_finished_federation_is_finished_whether_or_not_its_aggregator_runs() -> None:
    done = replace(OPEN, stage="finished")
    assert "waits for an operator" in of(done).text
    assert "is not running" in of(done, running=False).text


def test_a_log_without_an_aggregators_word_is_nothing_yet() -> None:
    assert of(None, begun=False).word == "Nothing yet"
    assert of(None).word == "Healthy"


@pytest.mark.parametrize(
    ("trouble", "word", "tone"),
    [
        (MISSING, "Nothing yet", "note"),
        (Trouble("locked", "held", "close it"), "Locked", "warning"),
        (Trouble("damaged", "not whole", "restore"), "Damaged", "bad"),
        (Trouble("newer", "of m099", "update"), "Newer", "warning"),
        (Trouble("older", "of m001", "start"), "Older", "warning"),
        (Trouble("unreadable", "no right", "give it"), "Unreadable", "warning"),
    ],
)
def test_what_is_wrong_with_the_log_is_told_with_the_way_out(trouble: Trouble, word: str, tone: Tone) -> None:
    found = health(Reading(Path("log/floe.sqlite"), False, trouble), NOW)
    assert (found.word, found.tone) == (word, tone)
    assert trouble.text in found.text
    assert trouble.way_out in found.text
    assert "log/floe.sqlite" in found.text
    assert "the aggregator is not running" in found.text


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (581, "9 min 41 s"), (7260, "2 h 1 min")]
)
def test_a_countdown_is_told_to_the_second(seconds: float, words: str) -> None:
    assert countdown(seconds) == words
