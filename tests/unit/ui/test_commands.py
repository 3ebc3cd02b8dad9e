"""The page runs floe's own commands: what reaches them, what a person reads, one at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from floe.config import load
from floe.identity import new_secret
from floe.operators import new_operator
from floe.settings import Config
from ui.commands import Answer, Jobs, may_steer, run


def a_config(folder: Path, text: str = "") -> Config:
    (folder / "floe.toml").write_text(text)
    return load(environ={}, file=folder / "floe.toml")


def test_a_command_gets_the_configuration_of_the_page(tmp_path: Path) -> None:
    config = a_config(tmp_path, '[paths]\nlog = "elsewhere"\n')
    (tmp_path / "elsewhere").mkdir()
    answer = run(config, "models", "list")
    assert not answer.done
    assert str(tmp_path / "elsewhere") in answer.said
    assert "\n" not in answer.said


def test_what_a_command_prints_is_its_answer(tmp_path: Path) -> None:
    answer = run(Config(folder=tmp_path), "init", "--print")
    assert answer.done
    assert "[mqtt]" in answer.said


def test_without_a_file_a_command_runs_in_the_pages_folder(tmp_path: Path) -> None:
    assert run(Config(folder=tmp_path), "key", "new").done
    assert (tmp_path / "secret.key").exists()


def test_a_file_that_came_after_the_page_is_named(tmp_path: Path) -> None:
    config = Config(folder=tmp_path)
    (tmp_path / "floe.toml").touch()
    answer = run(config, "models", "list")
    assert answer.code == -1
    assert "start `floe ui` again" in answer.said


def test_a_name_that_looks_like_an_option_is_a_name(tmp_path: Path) -> None:
    answer = run(a_config(tmp_path), "devices", "reject", "--", "--yes")
    assert "devices are not enrolled here" in answer.said, "it came as far as that"


def test_a_command_without_an_end_is_ended(tmp_path: Path) -> None:
    answer = run(a_config(tmp_path), "models", "list", timeout_s=0.001)
    assert answer.code == -1
    assert "no end after 0.001 s" in answer.said


def test_the_last_line_of_the_error_is_what_a_person_reads() -> None:
    assert Answer(4, "half\n", "note: a\nfloe: no broker\n").said == "no broker"
    assert Answer(9, "", "").said == "ended with code 9"
    assert Answer(0, "a\nb\n", "note").said == "a\nb"


def test_one_command_at_a_time() -> None:
    go_on, calls = threading.Event(), []

    def call(config: Config, *arguments: str) -> Answer:
        calls.append(arguments)
        assert go_on.wait(20)
        return Answer(0, "done", "")

    jobs = Jobs(call)
    first = jobs.start(Config(), "round", "start")
    assert first is not None
    assert jobs.running is first
    assert first.answer is None
    assert jobs.start(Config(), "round", "start") is None, "a double click"
    go_on.set()
    until_ended(jobs)
    assert first.answer is not None
    assert first.answer.said == "done"
    assert jobs.start(Config(), "round", "stop") is not None
    until_ended(jobs)
    assert calls == [("round", "start"), ("round", "stop")]


@pytest.mark.parametrize(
    "fault", [ValueError("embedded null byte"), MemoryError(), UnicodeEncodeError("a", "b", 0, 1, "c")]
)
def test_whatever_goes_wrong_a_command_ends_and_another_can_begin(fault: Exception) -> None:
    def call(config: Config, *arguments: str) -> Answer:
        raise fault

    jobs = Jobs(call)
    for _ in range(2):
        job = jobs.start(Config(), "round", "start")
        assert job is not None
        until_ended(jobs)
        assert job.answer is not None
        assert job.answer.code == 1
        assert (str(fault) or "MemoryError") in job.answer.said


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_no_command_takes_is_an_answer(tmp_path: Path, name: str) -> None:
    jobs = Jobs()
    job = jobs.start(a_config(tmp_path), "devices", "reject", "--", name)
    until_ended(jobs)
    assert job is not None
    assert job.answer is not None
    assert not job.answer.done
    assert job.answer.said


def until_ended(jobs: Jobs) -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(20)
    assert jobs.running is None


def test_without_an_operators_key_the_page_says_why_it_is_for_reading_only(tmp_path: Path) -> None:
    assert "no operator's key here" in may_steer(a_config(tmp_path))


def test_with_an_operators_key_that_counts_the_page_may_steer_and_nothing_is_written(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    new_secret(tmp_path / "secret.key")
    new_operator("olga", tmp_path / "operator.pem", tmp_path / "operators.pub")
    before = sorted(tmp_path.rglob("*"))
    assert may_steer(config) == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_key_that_is_in_no_list_is_not_enough(tmp_path: Path) -> None:
    new_operator("olga", tmp_path / "operator.pem", tmp_path / "operators.pub")
    (tmp_path / "operators.pub").write_text("")
    assert "has no line" in may_steer(a_config(tmp_path))


def test_a_delegation_that_has_ended_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = a_config(tmp_path)
    assert run(config, "federation", "new").done
    assert may_steer(config) == ""
    monkeypatch.setattr("ui.commands.time.time", lambda: 4e9)
    assert "ended" in may_steer(config)
