"""Texts that a device chooses (failure, software, names of features and tensors) stay texts, wherever a person looks.

A device of the federation's own makes the first model and then gives up, both in hostile words.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator

import pytest
from helpers.federation import NAME, Federation
from helpers.peer import Peer

from floe.messages import Answer, Status
from floe.report import Report
from floe.terminal import printable
from floe.topics import DeviceStatus

SQL, HTML, FORMULA = "'); DROP TABLE updates;--", "<script>alert(1)</script>", "=cmd|' /C calc'!A1"
STEERING, MARKUP, HIDDEN = "\x1b[2J\x1b]0;owned\x07", "[/bold]", "\u202egnp.exe"
TEXTS = [SQL, HTML, FORMULA, STEERING, MARKUP, HIDDEN, "a\0b"]
FAILURE = f"{FORMULA} {SQL} {HTML} {STEERING} {MARKUP} {HIDDEN} a\0b\nforged line\r\n"
TENSORS = [SQL, HTML, STEERING, MARKUP, HIDDEN, "../../w"]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, new_federation: object) -> Iterator[Federation]:
    """A federation to which all of it has been said, with `floe tail` listening."""
    with new_federation("said") as federation:  # type: ignore[operator]
        plan = {"model": "plain", "scaling": "none"}
        federation.configure({"plan": plan, "rounds": {"count": 5, "devices": 1, "quorum": 1, "deadline_s": 600.0}})
        tail, lines = federation.start("tail", "tail"), federation.start("tail-json", "tail", "--json")
        federation.wait(lambda: all("connected" in one.said() for one in (tail, lines)), "both to listen")
        federation.aggregator()
        with Peer(federation, "rogue") as peer:
            assert peer.give_first_model(TENSORS, TEXTS).outcome == "accepted"
            assert give_up(peer).detail == FAILURE
            peer.wire.send(DeviceStatus(NAME, "rogue"), Status, retain=True, state="idle", software=HTML + SQL)
            federation.until("SELECT * FROM devices WHERE software = ?", HTML + SQL)
            federation.wait(lambda: "forged line" in tail.said(), "the answer in the text")
            federation.wait(lambda: "forged line" in lines.said(), "the answer in the JSON")
        yield federation


def give_up(peer: Peer) -> Answer:
    answer = peer.deliver(peer.pack(peer.order("train"), {}, Report(failure=FAILURE)))
    assert (answer.outcome, answer.reason) == ("rejected", "device")
    return answer


def test_the_database_has_it_as_it_was_said_and_all_of_its_tables(said: Federation) -> None:
    (update,) = said.query("SELECT detail FROM updates WHERE outcome = 'rejected'")
    assert update["detail"] == " ".join(FAILURE.split())
    (event,) = said.query("SELECT text FROM events WHERE kind = 'rejected'")
    assert FAILURE in event["text"]
    tables = {row["name"] for row in said.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"devices", "events", "federations", "models", "refusals", "rounds", "updates"} <= tables
    (federation,) = said.query("SELECT schema FROM federations")
    assert json.loads(federation["schema"])["features"] == TEXTS


def test_the_csv_has_a_text_that_is_no_formula_and_steers_no_terminal(said: Federation) -> None:
    with (said.folder / "log" / "updates.csv").open(newline="", encoding="utf-8") as file:
        details = [row["detail"] for row in csv.DictReader(file) if row["outcome"] == "rejected"]
    assert details == ["'" + printable(" ".join(FAILURE.split()))]
    assert details[0].isprintable()


def test_no_process_has_printed_what_steers_a_terminal_or_a_line_that_was_made_up(said: Federation) -> None:
    for process in said.processes:
        text = process.said()
        assert set(text) - {"\n"} == {c for c in text if c.isprintable()}
        assert not any(line.startswith("forged line") for line in text.splitlines())


def test_floe_tail_shows_the_answer_on_one_line(said: Federation) -> None:
    (line,) = {line for line in (said.folder / "logs" / "tail.log").read_text().splitlines() if "forged line" in line}
    assert f"rejected: device: {printable(FAILURE)}" in line
    lines = (said.folder / "logs" / "tail-json.log").read_text().splitlines()
    (found,) = [json.loads(line) for line in lines if "forged line" in line]
    assert FAILURE in found["text"]


def test_floe_models_shows_the_names_of_tensors_and_features_as_they_are(said: Federation) -> None:
    shown = said.start("show", "models", "show", "latest")
    assert shown.wait() == 0, shown.said()
    for text in (*TENSORS, *TEXTS):
        assert printable(text) in shown.said()
    told = said.start("show-json", "models", "show", "latest", "--json")
    assert told.wait() == 0, told.said()
    about = json.loads(told.said())
    assert sorted(tensor["name"] for tensor in about["tensors"]) == sorted(TENSORS)
    assert about["schema"]["features"] == TEXTS


def test_floe_check_finds_nothing_damaged(said: Federation) -> None:
    checked = said.start("check", "check")
    assert checked.wait() == 0, checked.said()
    assert "all is well" in checked.said()
