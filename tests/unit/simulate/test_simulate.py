"""`floe simulate` without a broker: what it leaves, how it goes on after it was stopped, what it refuses."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from helpers.federation import Federation
from helpers.plain import Plain

from aggregator.chain import Chain
from aggregator.log import Log
from edge_client.task import Task
from floe.cli import floe
from floe.errors import ConfigError, DataError, FloeError
from floe.messages import Phase
from floe.plan import Plan
from floe.selection import EVERYBODY
from simulate.again import check_plan
from simulate.judge import Judge

DEVICES = ("a", "b", "c")


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Federation]:
    """A folder with three devices' features and floe.toml, which becomes the working directory."""

    def make(name: str) -> Federation:
        federation = Federation(tmp_path / name, 1, secret=False)
        federation.configure({"rounds": {"count": 3, "devices": 3, "fraction": 0.67}})
        for device in DEVICES:
            federation.features(device)
        federation.features("../test", rows=60)
        monkeypatch.chdir(federation.folder)
        return federation

    return make


def run(*arguments: str) -> Result:
    """`floe simulate`; raises what it raises."""
    result = CliRunner().invoke(floe, ["simulate", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def phases(federation: Federation, key: str = "learning_rate") -> list[tuple[str, str, Any]]:
    """The phases of the log in their order, the state of each, and what its plan has for a key."""
    rows = federation.query("SELECT * FROM rounds ORDER BY epoch, round, rowid")
    return [(f"{row['task']} {row['round']}", row["state"], json.loads(row["plan"])[key]) for row in rows]


def failing(monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...] = DEVICES, rounds: Collection[int] = ()) -> None:
    """Training with a learning rate of 1000, or in these rounds, fails on these devices."""
    train = Plain.train

    def trained(self: Plain, *arguments: Any, **named: Any) -> Any:
        if named["device"] in devices and (self._plan.learning_rate == 1000 or named["round"] in rounds):
            raise DataError("the loss is nan\x1b[2J; lower plan.learning_rate")
        return train(self, *arguments, **named)

    monkeypatch.setattr(Plain, "train", trained)


def interrupting(monkeypatch: pytest.MonkeyPatch, call: int, by: Callable[[], object]) -> None:
    """`by` happens before a device's work of this number, once."""
    do, calls = Task.do, iter(range(10_000))

    def counted(self: Task, *arguments: Any) -> Any:
        if next(calls) == call:
            by()
        return do(self, *arguments)

    monkeypatch.setattr(Task, "do", counted)


def kill() -> None:
    raise Killed


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *arguments: str) -> None:
    """`floe simulate`, killed where it first calls this method."""
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, lambda *_: kill())
        with pytest.raises(Killed):
            run(*arguments)


def test_every_round_has_a_line_a_model_and_a_result(made: Callable[[str], Federation]) -> None:
    federation = made("one")
    result = run("--test", "test", "--results", "r.jsonl")
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == [f"round {n}: 2 devices" for n in (1, 2, 3)]
    records = lines("r.jsonl")
    assert {record["round"]: record["sha256"] for record in records} == {
        number: sha256 for number, sha256 in federation.models().items() if number
    }
    for record in records:
        rows = federation.query("SELECT device FROM updates WHERE task = 'train' AND round = ?", record["round"])
        assert record["devices"] == sorted(row["device"] for row in rows)
        assert record["samples"] == 80
        assert record["bytes_up"] > 0 < record["bytes_down"]
        assert 0 <= record["accuracy"] <= 1
    assert [row["kind"] for row in federation.query("SELECT kind FROM events ORDER BY id DESC LIMIT 1")] == ["finished"]


@pytest.mark.parametrize("call", [0, 1, 4, 6, 9])
def test_a_simulation_that_is_killed_goes_on_to_the_same_models(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    whole = made("whole")
    run("--test", "test", "--results", "r.jsonl")
    expected = [record["sha256"] for record in lines("r.jsonl")]
    killed = made("killed")
    interrupting(monkeypatch, call, kill)
    with pytest.raises(Killed):
        run("--test", "test", "--results", "r.jsonl")
    run("--test", "test", "--results", "r.jsonl")
    assert killed.models() == whole.models()
    assert [record["sha256"] for record in lines("r.jsonl")] == expected


def test_one_that_is_killed_between_two_rounds_selects_the_same_devices(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made("whole")
    run()
    killed = made("killed")
    killed_at(monkeypatch, Judge, "__call__")
    assert len(killed.models()) == 2
    run()
    assert killed.models() == whole.models()


def test_all_devices_give_their_sums_however_few_a_round_waits_for(made: Callable[[str], Federation]) -> None:
    federation = made("one")
    federation.configure({"plan": {"scaling": "standard"}, "rounds": {"devices": 1}})
    run()
    sums = federation.query("SELECT device FROM updates WHERE task = 'sums' ORDER BY device")
    assert [row["device"] for row in sums] == list(DEVICES)


def test_ctrl_c_ends_it_with_130_and_it_goes_on(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made("whole")
    run()
    stopped = made("stopped")
    interrupting(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert run().exit_code == 130
    assert len(stopped.models()) < len(whole.models())
    assert run().exit_code == 0
    assert stopped.models() == whole.models()


def test_a_line_that_a_kill_cut_off_is_written_again(made: Callable[[str], Federation]) -> None:
    made("one")
    run("--test", "test", "--results", "r.jsonl")
    whole = lines("r.jsonl")
    text = Path("r.jsonl").read_text()
    Path("r.jsonl").write_text(text[:-20])
    run("--test", "test", "--results", "r.jsonl")
    assert lines("r.jsonl") == whole


def test_the_target_is_about_the_test_rows(made: Callable[[str], Federation]) -> None:
    federation = made("one")
    run("--test", "test", "--results", "r.jsonl", "--target", "0.5")
    assert [record["round"] for record in lines("r.jsonl")] == [1]
    assert "has reached the target 0.5" in federation.query("SELECT text FROM events WHERE kind = 'enough'")[0]["text"]
    assert run("--test", "test", "--results", "r.jsonl", "--target", "0.5").stdout == ""
    run("--test", "test", "--results", "r.jsonl")
    assert [record["round"] for record in lines("r.jsonl")] == [1, 2, 3]


def test_results_of_another_run_are_not_continued(made: Callable[[str], Federation]) -> None:
    made("one")
    run("--results", "../r.jsonl")
    made("two")
    with pytest.raises(DataError, match="another run"):
        run("--results", "../r.jsonl", "--seed", "8", "--learning-rate", "0.2")


@pytest.mark.parametrize("text", ['{"my": "precious"}', "line one\nline two", '{"epoch": 1, "round": 1}\nmine\n'])
def test_a_file_that_holds_something_else_stays_as_it_is(made: Callable[[str], Federation], text: str) -> None:
    made("precious")
    Path("mine.json").write_text(text)
    with pytest.raises(DataError, match="choose another file"):
        run("--results", "mine.json")
    assert Path("mine.json").read_text() == text


def test_results_go_into_a_file_alone(made: Callable[[str], Federation]) -> None:
    made("pipe")
    os.mkfifo("pipe")
    with pytest.raises(ConfigError, match="is there, and no file"):
        run("--results", "pipe")


def test_a_log_does_not_go_on_with_a_plan_that_its_models_do_not_fit(made: Callable[[str], Federation]) -> None:
    made("other")
    run("--rounds", "1")
    with pytest.raises(ConfigError, match=r"scaling = 'local', and .* has begun with"):
        run("--rounds", "2", "--scaling", "local")
    run("--rounds", "2", "--learning-rate", "0.01")


@pytest.mark.parametrize(("scaling", "call", "phase"), [("standard", 1, "sums 0"), ("none", 0, "init 0")])
@pytest.mark.parametrize("change", [{"model": "held"}, {"scaling": "local"}, {"personal": ["bias"]}])
def test_a_kill_in_a_first_phase_does_not_let_its_model_be_trained_by_another_plan(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch, scaling: str, call: int, phase: str,
    change: dict[str, Any],
) -> None:  # fmt: skip
    federation = made("killed")
    begun: dict[str, Any] = {"scaling": scaling}
    federation.configure({"plan": begun, "rounds": {"count": 1}})
    interrupting(monkeypatch, call, kill)
    with pytest.raises(Killed):
        run()
    assert phases(federation)[-1][:2] == (phase, "open")
    federation.configure({"plan": begun | change, "rounds": {"count": 1}})
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"{next(iter(change))} = .* has begun with .* as it was"):
            run()
    federation.configure({"plan": begun, "rounds": {"count": 1}})
    run()
    assert {state for _, state, _ in phases(federation)} == {"closed"}


def test_what_a_log_has_begun_with_is_what_has_closed_not_what_came_to_nothing(tmp_path: Path) -> None:
    log, first = Log(tmp_path), Phase("main", 1, 0, "init")
    log.federation("demo", "main", 1, "plaintext")
    log.open_round(first, None, Plan(model="mlp"), EVERYBODY, ["a"])
    log.close_round(first, up=0, down=0, model=None)
    log.open_round(Phase("main", 1, 1, "train"), None, Plan(model="cnn"), EVERYBODY, ["a"])
    with pytest.raises(ConfigError, match="begun with 'cnn'"):
        check_plan(Plan(model="mlp"), log, "main")
    log.void_round(Phase("main", 1, 1, "train"))
    check_plan(Plan(model="mlp"), log, "main")
    with pytest.raises(ConfigError, match="begun with 'mlp'"):
        check_plan(Plan(model="cnn"), log, "main")
    log.close()


def test_a_log_of_real_devices_is_refused(made: Callable[[str], Federation]) -> None:
    made("one")
    log = Log(Path("log"))
    log.pin("a", "a key")
    log.close()
    with pytest.raises(ConfigError, match="no simulated one"):
        run()


def test_what_every_device_refuses_is_told(made: Callable[[str], Federation]) -> None:
    federation = made("one")
    federation.configure({"plan": {"model": "nothing"}, "rounds": {"devices": 3}})
    with pytest.raises(DataError, match=r"sums 0 came to nothing: a \(.*features/a\): .*nothing"):
        run()


def test_a_round_that_fails_on_every_device_ends_the_run_and_opens_no_other(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    failing(monkeypatch)
    told = r"train 1 came to nothing: (\w) \(.*/features/\1\): .*nan\\x1b\[2J; .* \(and 1 more refused\); mend"
    with pytest.raises(DataError, match=told) as caught:
        run("--learning-rate", "1000")
    assert "--rounds" not in str(caught.value)
    assert phases(federation)[2:] == [("train 1", "void", 1000)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_mended_plan_gets_all_its_rounds_however_many_have_failed_before(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    federation = made("one")
    failing(monkeypatch)
    federation.configure({"plan": {"learning_rate": 1000.0}, "rounds": {"count": count, "devices": 3}})
    for _ in range(2):
        with pytest.raises(DataError):
            run()
    federation.configure({"plan": {"learning_rate": 0.1}, "rounds": {"count": count, "devices": 3}})
    last = count + 2
    assert run().stdout.startswith("round 3: 3 devices")
    trained = [(f"train {number}", "closed", 0.1) for number in range(3, last + 1)]
    void = [("train 1", "void", 1000.0), ("train 2", "void", 1000.0)]
    assert phases(federation)[2:] == [*void, *trained, (f"evaluate {last}", "closed", 0.1)]
    again = run("--learning-rate", "0.2")
    assert (
        f"{last} rounds: {count} closed, 2 void; not used: learning_rate = 0.2 (the last training had" in again.stderr
    )
    assert f"go on with --rounds {count + 1}, or begin a new run in other folders" in again.stderr
    run("--rounds", str(count + 1))
    assert f"train {last + 1}" in [name for name, *_ in phases(federation)]


def test_a_round_that_all_have_refused_before_a_kill_is_not_counted_either(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    failing(monkeypatch)
    killed_at(monkeypatch, Chain, "void", "--rounds", "1", "--learning-rate", "1000")
    assert phases(federation)[-1] == ("train 1", "open", 1000)
    run("--rounds", "1")
    mended = [("train 2", "closed", 0.1), ("evaluate 2", "closed", 0.1)]
    assert phases(federation)[2:] == [("train 1", "void", 1000), *mended]


def test_a_first_phase_that_all_have_refused_before_a_kill_begins_anew_with_a_mended_plan(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    killed_at(monkeypatch, Chain, "void", "--model", "nothing")
    run("--rounds", "1")
    assert phases(federation, "model")[:2] == [("sums 0", "void", "nothing"), ("sums 0", "closed", "plain")]


def test_rounds_that_fail_may_end_with_what_was_trained_before(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    failing(monkeypatch, rounds=range(2, 9))
    for _ in range(2):
        with pytest.raises(DataError, match="it goes on from there, or with --rounds 1 to end with what is there"):
            run()
    run("--rounds", "1")
    assert [name for name, *_ in phases(federation)][-3:] == ["train 2", "train 3", "evaluate 3"]


def test_where_every_round_was_void_the_run_has_failed(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    made("one").configure({"rounds": {"count": 2, "devices": 3, "quorum": 2}})
    failing(monkeypatch, ("b", "c"), rounds=(1, 2))
    for _ in range(2):
        with pytest.raises(DataError, match=r"2 rounds: 0 closed, 2 void, so no round made a model; mend .*--rounds 3"):
            run()
    told = run("--rounds", "3")
    assert told.stdout.startswith("round 3: 3 devices")
    assert "3 rounds: 1 closed, 2 void" in told.stderr


def test_every_round_that_was_void_has_a_line(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    made("one").configure({"rounds": {"count": 3, "devices": 3, "quorum": 2}})
    failing(monkeypatch, ("b", "c"), rounds=(1, 3))
    first, second, third = run().stdout.splitlines()
    why = r"void, 1 of 3 updates accepted, below the quorum; b: the loss is nan\x1b[2J; lower plan.learning_rate"
    assert (first, third) == (f"round 1: {why}", f"round 3: {why}")
    assert second.startswith("round 2: 3 devices")


def test_a_first_phase_that_has_failed_begins_anew_with_a_mended_plan(made: Callable[[str], Federation]) -> None:
    federation = made("one")
    federation.configure({"plan": {"scaling": "standard"}, "rounds": {"count": 1, "devices": 3}})
    with pytest.raises(DataError, match="sums 0 came to nothing: a "):
        run("--model", "nothing")
    run()
    done = [(f"{phase}", "closed", "plain") for phase in ("sums 0", "init 0", "train 1", "evaluate 1")]
    assert phases(federation, "model") == [("sums 0", "void", "nothing"), *done]


def test_an_evaluation_that_fails_names_the_rounds_with_which_it_goes_on(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    with monkeypatch.context() as patched:
        patched.setattr(Plain, "evaluate", lambda *_, **__: 1 / 0)
        with pytest.raises(DataError, match=r"evaluate 3 came to nothing: .* and go on with --rounds 4"):
            run()
    run("--rounds", "4")
    assert phases(federation)[-2:] == [("train 4", "closed", 0.1), ("evaluate 4", "closed", 0.1)]


def test_an_evaluation_that_fails_where_the_target_was_reached_names_the_target(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    with monkeypatch.context() as patched:
        patched.setattr(Plain, "evaluate", lambda *_, **__: 1 / 0)
        way_out = r"mend .*, and change what ends the rounds \(accuracy .* has reached the target 0\.1\)"
        with pytest.raises(DataError, match=way_out) as caught:
            run("--target", "0.1")
    assert "--rounds" not in str(caught.value)
    assert not federation.query("SELECT * FROM events WHERE kind = 'finished'")
    run("--target", "0.99")
    assert phases(federation)[-1] == ("evaluate 3", "closed", 0.1)


def test_what_no_training_has_had_is_told_although_an_evaluation_had_it(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    killed_at(monkeypatch, Judge, "__call__", "--rounds", "1")
    for _ in range(2):
        said = run("--rounds", "1", "--learning-rate", "0.01").stderr
        assert "not used: learning_rate = 0.01 (the last training had learning_rate = 0.1)" in said
    assert phases(federation)[-2:] == [("train 1", "closed", 0.1), ("evaluate 1", "closed", 0.01)]


def test_a_plan_does_not_count_after_the_last_round(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    made("one")
    interrupting(monkeypatch, 5, kill)
    with pytest.raises(Killed):
        run("--rounds", "1")
    said = run("--rounds", "1", "--learning-rate", "0.01").stderr
    assert "train 1 keeps learning_rate = 0.1; learning_rate = 0.01 is not used" in said


def test_a_feature_folder_that_is_gone_may_come_back(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    made("one").configure({"rounds": {"devices": 2}})
    interrupting(monkeypatch, 5, kill)
    with pytest.raises(Killed):
        run()
    Path("features/c").rename("c")
    with pytest.raises(
        DataError, match="begun with c, whose feature folder is gone: bring it back, or begin a new run"
    ):
        run()
    Path("c").rename("features/c")
    run()


def test_where_nothing_is_left_to_do_what_is_not_used_is_told(made: Callable[[str], Federation]) -> None:
    federation = made("one")
    run()
    before = phases(federation)
    again = run("--learning-rate", "0.01", "--seed", "9").stderr
    assert "not used: learning_rate = 0.01, seed = 9 (the last training had learning_rate = 0.1, seed = 7)" in again
    assert "go on with --rounds 4" in again
    assert "not used" not in run().stderr
    assert "all 3 rounds are closed; go on with --rounds 4" in run("--rounds", "2").stderr
    assert phases(federation) == before
    assert "not used" not in run("--rounds", "4", "--learning-rate", "0.01").stderr
    assert phases(federation)[-2:] == [("train 4", "closed", 0.01), ("evaluate 4", "closed", 0.01)]


def test_where_the_target_is_reached_more_rounds_are_not_offered(made: Callable[[str], Federation]) -> None:
    made("one")
    run("--test", "test", "--target", "0.5")
    again = run("--test", "test", "--target", "0.5", "--rounds", "9", "--learning-rate", "0.01").stderr
    assert "all 1 rounds are closed; not used: learning_rate = 0.01" in again
    assert "change what ends the rounds (accuracy 0.75 has reached the target 0.5), or" in again
    assert "--rounds" not in again


def test_a_round_that_was_open_keeps_its_plan_and_that_is_told(
    made: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made("one")
    interrupting(monkeypatch, 5, kill)
    with pytest.raises(Killed):
        run()
    said = run("--learning-rate", "0.01").stderr
    assert "train 1 keeps learning_rate = 0.1; learning_rate = 0.01 counts after it" in said
    assert [rate for name, _, rate in phases(federation) if name.startswith("train")] == [0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--features", "nowhere"), "no such folder"),
        (("--features", "logs"), "holds no feature folder"),
        (("--test", "logs"), "no data found"),
        (("--devices", "4"), "there are 3 feature folders"),
        (("--results", "floe.toml"), "something else than results"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    made: Callable[[str], Federation], arguments: tuple[str, ...], expected: str
) -> None:
    made("one")
    with pytest.raises(FloeError, match=expected):
        run(*arguments)


def test_test_rows_of_nobody_do_not_go_with_personal_layers(made: Callable[[str], Federation]) -> None:
    made("one").configure({"plan": {"personal": ["bias"]}})
    with pytest.raises(ConfigError, match="not whole without the personal layers of a device"):
        run("--test", "test")


def test_what_each_device_keeps_for_itself_is_checked(made: Callable[[str], Federation]) -> None:
    made("one").configure({"plan": {"personal": ["bias"]}, "rounds": {"devices": 3}})
    run("--rounds", "1")
    [kept] = Path("state/aggregator-main/devices/b").glob("*.safetensors")
    assert json.loads(CliRunner().invoke(floe, ["check", "--json"]).stdout)["checked"]["local model"] == 3
    kept.write_bytes(kept.read_bytes()[:-1])
    [finding] = json.loads(CliRunner().invoke(floe, ["check", "--json"]).stdout)["findings"]
    assert (finding["level"], finding["place"]) == ("damaged", str(kept.absolute()))


def test_a_feature_folder_that_no_device_can_be_called_is_refused(made: Callable[[str], Federation]) -> None:
    made("one").features("Not A Name")
    with pytest.raises(DataError, match="a device needs a name"):
        run()


def test_what_is_wrong_with_the_data_of_any_is_told_before_the_first_one_trains(
    made: Callable[[str], Federation],
) -> None:
    made("garbled")
    Path("features/c/train_y.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"features/c.*train_y\.npy"):
        run()
    assert not Path("log").exists()


def test_what_is_no_feature_folder_is_passed_over_and_named(made: Callable[[str], Federation]) -> None:
    made("more")
    Path("features/README").write_text("whose these are")
    assert "passed over, no feature folders: README" in run("--rounds", "1").stderr
