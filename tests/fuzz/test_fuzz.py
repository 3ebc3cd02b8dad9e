"""Every parser of wire bytes against its corpus, and then against some seconds of new hostile inputs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fuzz import run
from fuzz.caps import MEMORY, TooSlowError, call, capped
from fuzz.inputs import MAX_BYTES, hostile, whole
from fuzz.targets import CORPUS, TARGETS, Target, kept
from hypothesis import HealthCheck, given, settings

from floe.topics import parse

EXAMPLES = 500


@pytest.mark.parametrize("name", TARGETS)
def test_a_valid_input_is_taken(name: str) -> None:
    target = TARGETS[name]
    taken = [call(target.run, seed, target.allowed) for seed in target.seeds()]
    assert any(taken)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_before_is_taken_or_refused(name: str) -> None:
    for path in kept(name):
        call(TARGETS[name].run, path.read_bytes(), TARGETS[name].allowed)


def test_every_folder_of_the_corpus_belongs_to_a_target_and_is_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 2_000_000


@pytest.mark.parametrize("name", TARGETS)
def test_a_hostile_input_is_taken_or_refused_in_bounded_time_and_memory(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(hostile(target.pool(name), target.frame))
    def one(data: bytes) -> None:
        call(target.run, data, target.allowed)

    one()


def test_the_caps_stop_what_takes_too_long_or_too_much() -> None:
    with pytest.raises(TooSlowError), capped(cpu_s=0.05):
        _never_ends()
    with pytest.raises(MemoryError), capped():
        bytearray(2 * MEMORY)
    with capped():
        bytearray(MEMORY // 2)


def _never_ends() -> None:
    while time.process_time() >= 0:
        pass


def test_an_error_that_is_not_allowed_comes_through() -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        call(broken, b"", (ValueError,))
    assert not call(broken, b"", (LookupError,))


@settings(max_examples=50)
@given(hostile([b'{"a":[1,2],"b":{"c":"d"}}'], whole))
def test_inputs_are_bytes_of_a_bounded_length(data: bytes) -> None:
    assert len(data) <= MAX_BYTES


def test_the_long_run_keeps_and_tells_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def parser(data: bytes) -> None:
        if b"#" in data:
            raise ZeroDivisionError
        parse(data.decode("ascii", "replace"))

    monkeypatch.setattr(run, "CORPUS", tmp_path)
    explorer = run.Explorer("topic", Target(parser, lambda: [b"floe/f/device/a/status"]))
    for _ in range(5):
        if not explorer.failed:
            explorer.turn()
    assert explorer.failed == 1
    assert any(b"#" in path.read_bytes() for path in (tmp_path / "topic").iterdir())
    assert "topic: FAILED on" in capsys.readouterr().out
