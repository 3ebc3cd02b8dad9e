"""`floe round`: an operator's signed commands, through a real broker, to a real aggregator."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.federation import Federation
from helpers.plain import SECTIONS
from helpers.process import environment

from floe.identity import new_secret, read_identity
from floe.messages import Command
from floe.operators import known_operators
from floe.session import Session
from floe.settings import Mqtt
from floe.store import now
from floe.topics import OperatorCommand

ROOT = Path(__file__).resolve().parents[2]


def floe(federation: Federation, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = environment({"PYTHONPATH": str(ROOT)})
    command = [sys.executable, "-m", "floe", *arguments]
    folder = folder or federation.folder
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def asked(federation: Federation, *arguments: str) -> dict[str, Any]:
    done = floe(federation, "round", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def steered(federation: Federation) -> Federation:
    """A federation of a and b with an operator, whose trainers may be held; nothing runs yet."""
    rounds = {"count": 3, "quorum": 2, "grace_s": 600.0}
    federation.configure({**SECTIONS, "plan": {**SECTIONS["plan"], "model": "held"}, "rounds": rounds})
    assert floe(federation, "key", "operator", "opa").returncode == 0
    return federation


def start(federation: Federation) -> None:
    federation.aggregator()
    for device in "ab":
        federation.client(device)


def test_rounds_are_paused_and_resumed_also_over_a_restart(steered: Federation) -> None:
    gate = steered.folder / "hold-a-1"
    gate.touch()
    start(steered)
    steered.until("SELECT * FROM devices WHERE device = 'a' AND state = 'training' AND task = 'train'")
    assert asked(steered, "pause")["held"] == "paused"
    gate.unlink()
    steered.until("SELECT * FROM rounds WHERE task = 'train' AND state = 'closed'")
    steered.processes[0].kill()
    steered.aggregator()
    for device in "ab":
        steered.until("SELECT * FROM devices WHERE device = ? AND state NOT IN ('unknown', 'offline')", device)
    status = asked(steered, "status")
    assert (status["stage"], status["held"], status["phase"]["round"]) == ("waiting", "paused", 2)
    assert "nothing changes" in asked(steered, "pause")["detail"]
    assert steered.query("SELECT * FROM rounds WHERE round = 2") == []
    asked(steered, "resume")
    steered.finish()
    assert max(steered.models()) == 3


def test_stop_closes_what_is_open_and_start_goes_on_for_more_rounds(steered: Federation) -> None:
    (steered.folder / "hold-b-1").touch()
    start(steered)
    steered.until("SELECT * FROM updates WHERE device = 'a' AND task = 'train' AND outcome = 'accepted'")
    assert asked(steered, "stop")["held"] == "stopped"
    assert steered.until("SELECT state FROM rounds WHERE round = 1 AND task = 'train'")["state"] == "void"
    refused = floe(steered, "round", "resume")
    assert refused.returncode == 1
    assert "the rounds are stopped, not paused" in refused.stderr
    (steered.folder / "hold-b-1").unlink()
    asked(steered, "start", "--rounds", "1")
    steered.finish()
    assert max(steered.models()) == 2
    text = floe(steered, "round", "status")
    assert text.returncode == 0
    assert "all is done, 2 rounds" in text.stdout
    asked(steered, "start", "--rounds", "2")
    steered.until("SELECT * FROM rounds WHERE round = 4 AND task = 'evaluate' AND state = 'closed'")
    assert floe(steered, "round", "stop").returncode == 1


def test_start_without_a_number_takes_back_stop_with_whoever_is_there_also_over_a_restart(steered: Federation) -> None:
    steered.configure({**SECTIONS, "rounds": {"count": 2, "devices": 3, "grace_s": 600.0}})
    start(steered)
    for device in "ab":
        steered.until("SELECT * FROM devices WHERE device = ?", device)
    assert asked(steered, "stop")["held"] == "stopped"
    steered.processes[1].kill()
    steered.processes[2].kill()
    steered.until("SELECT count(*) AS n FROM devices WHERE state = 'offline' GROUP BY state HAVING n = 2")
    answer = asked(steered, "start")
    assert (answer["stage"], answer["held"], answer["last"]) == ("waiting", "", 2)
    steered.processes[0].kill()
    steered.aggregator()
    steered.client("a")
    steered.finish()
    assert max(steered.models()) == 2


def test_an_operator_who_has_lost_count_goes_on_above_what_was_given_before(steered: Federation) -> None:
    start(steered)
    steered.finish()
    for _ in range(3):
        asked(steered, "status")
    shutil.rmtree(steered.folder / "state" / "operator-opa")
    assert asked(steered, "start", "--rounds", "1")["last"] == 4
    assert len(steered.query("SELECT * FROM events WHERE text LIKE '%older than a command%'")) == 1
    assert asked(steered, "status")["held"] == ""


def test_a_refused_command_is_not_followed_later(steered: Federation) -> None:
    start(steered)
    steered.finish()
    operator = read_identity(steered.folder / "operator.pem", "opa")
    topic = str(OperatorCommand("floe", "opa", "main"))
    stop = operator.sign(command(operator.key, 2**40, "stop"))
    session = Session(Mqtt(port=steered.port), "replayer", [], None)
    session.connect(lambda: False, print)
    session.publish(topic, stop)
    steered.until("SELECT * FROM events WHERE text LIKE '%nothing to stop%'")
    (steered.folder / "hold-a-4").touch()
    assert asked(steered, "start", "--rounds", "2")["last"] == 5
    session.publish(topic, stop)
    steered.until("SELECT * FROM rounds WHERE round = 4 AND state = 'open'")
    (steered.folder / "hold-a-4").unlink()
    steered.until("SELECT * FROM rounds WHERE round = 5 AND task = 'evaluate' AND state = 'closed'")
    session.close()


def test_only_operators_that_the_aggregator_knows_are_followed(steered: Federation, tmp_path: Path) -> None:
    start(steered)
    steered.until("SELECT * FROM devices")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "secret.key").write_bytes((steered.folder / "secret.key").read_bytes())
    (stranger / "secret.key").chmod(0o600)
    (stranger / "floe.toml").write_text(f"[mqtt]\nport = {steered.port}\n")
    assert floe(steered, "key", "operator", "opa", folder=stranger).returncode == 0
    refused = floe(steered, "round", "stop", folder=stranger)
    assert refused.returncode == 1
    assert "'opa' with this key is no operator here" in refused.stderr
    assert asked(steered, "status")["held"] == ""


def test_a_command_that_is_replayed_is_followed_once(steered: Federation) -> None:
    start(steered)
    steered.finish()
    operator = read_identity(steered.folder / "operator.pem", "opa")
    topic = str(OperatorCommand("floe", "opa", "main"))
    old, new = (operator.sign(command(operator.key, seq, action)) for seq, action in ((2, "pause"), (3, "start")))
    session = Session(Mqtt(port=steered.port), "replayer", [], None)
    session.connect(lambda: False, print)
    session.publish(topic, new)
    steered.until("SELECT * FROM rounds WHERE round = 6 AND state = 'closed'")
    session.publish(topic, new)
    session.publish(topic, old)
    steered.until("SELECT * FROM events WHERE kind = 'refused' AND text LIKE '%older than a command%'")
    session.close()
    assert asked(steered, "status")["last"] == 6


def command(key: str, seq: int, action: Any) -> Command:
    return Command(federation="floe", sender="opa", key=key, proof="", seq=seq, to="main", action=action)


def test_without_an_aggregator_or_a_key_the_command_says_so(steered: Federation, tmp_path: Path) -> None:
    nobody = floe(steered, "round", "status", "--wait", "1")
    assert nobody.returncode == 4
    assert "no reply from aggregator 'main'" in nobody.stderr
    new_secret(tmp_path / "secret.key")
    keyless = floe(steered, "round", "status", folder=tmp_path)
    assert keyless.returncode == 5
    assert "floe key operator" in keyless.stderr
    again = floe(steered, "key", "operator", "opa")
    assert again.returncode == 5
    assert "has an operator 'opa' already" in again.stderr
    assert len(known_operators(steered.folder / "operators.pub")) == 1


def test_an_aggregator_that_is_restored_from_a_backup_is_heard_again(steered: Federation) -> None:
    steered.configure({"rounds": {"count": 1, "quorum": 2, "grace_s": 600.0}})
    start(steered)
    steered.finish()
    aggregator = steered.processes[0]
    aggregator.kill()
    sequence = steered.folder / "state" / "aggregator-main" / "sequence"
    session = int(sequence.read_text())
    for _ in range(3):
        before, again = now(), steered.aggregator()
        steered.until("SELECT * FROM devices WHERE device = 'a' AND last_seen > ?", before)
        again.interrupt()
    assert int(sequence.read_text()) > session
    sequence.write_text(str(session))
    steered.configure({"rounds": {"count": 2, "quorum": 2, "grace_s": 600.0}})
    steered.aggregator()
    steered.until("SELECT * FROM rounds WHERE round = 2 AND task = 'evaluate' AND state = 'closed'")
    steered.until("SELECT * FROM events WHERE kind = 'restored'")


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("FLOE_SECURITY_OPERATOR_KEY", "zed.key", "let its name end in .pem"),
        ("FLOE_SECURITY_OPERATORS", "operator.pem", "name another file"),
        ("FLOE_SECURITY_OPERATORS", "nowhere/o.pub", "make it first"),
    ],
)
def test_a_key_in_the_wrong_place_is_not_made(federation: Federation, variable: str, value: str, problem: str) -> None:
    before = {path.name for path in federation.folder.iterdir()}
    process = federation.start("key", "key", "operator", "zed", env={variable: value})
    assert process.wait() == 5
    assert problem in process.said()
    assert {path.name for path in federation.folder.iterdir()} == before
