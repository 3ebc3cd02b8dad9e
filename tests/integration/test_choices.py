"""`floe plan` and `floe models promote`, through a real broker, to a real aggregator with real devices."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.federation import Federation
from helpers.plain import SECTIONS
from helpers.process import environment

from floe.files import hash_of

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = {"count": 3, "quorum": 2, "grace_s": 600.0}


def floe(
    federation: Federation, *arguments: str, folder: Path | None = None, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = environment({"PYTHONPATH": str(ROOT), **(variables or {})})
    command, folder = [sys.executable, "-m", "floe", *arguments], folder or federation.folder
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def asked(federation: Federation, *arguments: str) -> dict[str, Any]:
    done = floe(federation, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def refused(federation: Federation, *arguments: str) -> str:
    done = floe(federation, *arguments)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def steered(federation: Federation) -> Federation:
    """A federation of a and b with an operator, whose trainers may be held; nothing runs yet."""
    federation.configure({**SECTIONS, "plan": {**SECTIONS["plan"], "model": "held"}, "rounds": ROUNDS})
    assert floe(federation, "key", "operator", "opa").returncode == 0
    return federation


def start(federation: Federation) -> None:
    federation.aggregator()
    for device in "ab":
        federation.client(device)


def restart(federation: Federation) -> None:
    """The aggregator, after SIGKILL."""
    federation.processes[0].kill()
    federation.processes[0] = federation.aggregator()
    federation.processes.pop()
    for device in "ab":
        federation.until("SELECT * FROM devices WHERE device = ? AND state NOT IN ('unknown', 'offline')", device)


def hold(federation: Federation, round_: int) -> list[Path]:
    gates = [federation.folder / f"hold-{device}-{round_}" for device in "ab"]
    for gate in gates:
        gate.touch()
    return gates


def plans(federation: Federation) -> dict[int, dict[str, Any]]:
    rows = federation.query("SELECT round, plan FROM rounds WHERE task = 'train'")
    return {row["round"]: json.loads(row["plan"]) for row in rows}


def bases(federation: Federation) -> dict[int, str]:
    return {row["round"]: row["base_sha256"] for row in federation.query("SELECT * FROM rounds WHERE task = 'train'")}


def held_by(federation: Federation, device: str) -> str:
    path = federation.folder / "state" / f"device-{device}" / "base.safetensors"
    return hash_of(path) if path.exists() else ""


def clean(federation: Federation) -> None:
    done = floe(federation, "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_plan_is_the_next_rounds_and_not_that_of_the_open_one_also_after_a_kill(steered: Federation) -> None:
    gates = hold(steered, 1)
    start(steered)
    steered.until("SELECT * FROM rounds WHERE round = 1 AND state = 'open'")
    reply = asked(steered, "plan", "set", "epochs=3", "learning_rate=0.25")
    assert reply["detail"] == ("epochs = 3, learning_rate = 0.25: counts from train 2 on; train 1 keeps its own")
    restart(steered)
    assert asked(steered, "plan", "show")["plan"]["epochs"] == 3
    for gate in gates:
        gate.unlink()
    steered.finish()
    told = {number: (plan["epochs"], plan["learning_rate"], plan["model"]) for number, plan in plans(steered).items()}
    assert told == {1: (1, 0.1, "held"), 2: (3, 0.25, "held"), 3: (3, 0.25, "held")}
    events = steered.query("SELECT text FROM events WHERE kind = 'control'")
    assert [row["text"] for row in events] == [f"operator 'opa': plan: {reply['detail']}"]
    shown = tomllib.loads(floe(steered, "plan", "show").stdout)["plan"]
    assert (shown["epochs"], shown["model"]) == (3, "held"), "what is printed can stand in floe.toml"
    assert "nothing changes" in asked(steered, "plan", "set", "epochs=3")["detail"]
    clean(steered)


def test_another_rule_counts_from_the_next_round_on_and_one_with_too_few_devices_is_refused(
    steered: Federation,
) -> None:
    gates = hold(steered, 1)
    start(steered)
    steered.until("SELECT * FROM rounds WHERE round = 1 AND state = 'open'")
    krum = refused(steered, "plan", "set", "rule=krum", "byzantine=1")
    assert "needs 5 updates, and [rounds] quorum = 2: raise quorum, or lower byzantine" in krum
    asked(steered, "plan", "set", "rule=median")
    restart(steered)
    for gate in gates:
        gate.unlink()
    steered.finish()
    assert {number: plan["rule"] for number, plan in plans(steered).items()} == {1: "fedavg", 2: "median", 3: "median"}
    rows = steered.query("SELECT round, weight FROM updates WHERE task = 'train' ORDER BY round")
    assert [row["weight"] for row in rows] == [0.5, 0.5, None, None, None, None]
    clean(steered)


def test_a_plan_that_makes_no_sense_is_refused_here_or_there(steered: Federation) -> None:
    assert "unknown key 'epoch' in [plan]; known: model, hidden" in refused(steered, "plan", "set", "epoch=3")
    assert "[plan] epochs = '0': allowed is whole number >= 1" in refused(steered, "plan", "set", "epochs=0")
    assert "[plan] mu = 'nan': allowed is" in refused(steered, "plan", "set", "mu=nan")
    assert "epochs: give KEY=VALUE" in refused(steered, "plan", "set", "epochs")
    start(steered)
    steered.finish()
    assert "scaling cannot be changed" in refused(steered, "plan", "set", "scaling=standard")
    assert "model cannot be changed" in refused(steered, "plan", "set", "model=mlp")
    assert asked(steered, "plan", "show")["plan"] == plans(steered)[3]


def test_an_earlier_model_is_promoted_fetched_and_trained_on_also_after_a_kill(steered: Federation) -> None:
    start(steered)
    steered.finish()
    models = steered.models()
    for device in "ab":
        steered.wait(lambda d=device: held_by(steered, d) == models[3], "the newest model is fetched")
    assert "is the present one" in asked(steered, "models", "promote", "1")["detail"]
    for device in "ab":
        steered.wait(lambda d=device: held_by(steered, d) == models[1], "the model that was promoted is fetched")
    listed = json.loads(floe(steered, "models", "list", "--json").stdout)
    assert [row["round"] for row in listed if row["present"]] == [1]
    clean(steered)
    restart(steered)
    gates = hold(steered, 4)
    asked(steered, "round", "start", "--rounds", "2")
    steered.until("SELECT * FROM rounds WHERE round = 4 AND state = 'open'")
    assert "train 4 is open, and starts from the present model" in refused(steered, "models", "promote", "3")
    restart(steered)
    for gate in gates:
        gate.unlink()
    steered.until("SELECT * FROM rounds WHERE round = 5 AND task = 'evaluate' AND state = 'closed'")
    made = steered.models()
    assert bases(steered) == {1: made[0], 2: made[1], 3: made[2], 4: made[1], 5: made[4]}
    assert made[4] == made[2], "the same devices, data and base: the same model, which the newest is all the same"
    listed = json.loads(floe(steered, "models", "list", "--json").stdout)
    assert [row["round"] for row in listed if row["present"]] == [5]
    clean(steered)


def test_a_model_is_promoted_by_its_hash_while_the_rounds_are_paused(steered: Federation) -> None:
    gates = hold(steered, 2)
    start(steered)
    steered.until("SELECT * FROM rounds WHERE round = 2 AND state = 'open'")
    asked(steered, "round", "pause")
    for gate in gates:
        gate.unlink()
    steered.until("SELECT * FROM rounds WHERE round = 2 AND state = 'closed'")
    models = steered.models()
    assert "no such global model" in refused(steered, "models", "promote", models[1][:7])
    assert "model 1 (" in asked(steered, "models", "promote", models[1][:8])["detail"]
    restart(steered)
    asked(steered, "models", "promote", "0")
    asked(steered, "round", "resume")
    steered.finish()
    assert bases(steered)[3] == models[0]
    clean(steered)


def test_a_model_that_the_disk_has_damaged_is_not_promoted(steered: Federation) -> None:
    start(steered)
    steered.finish()
    steered.model(1).write_bytes(b"damaged")
    assert "restore it from a backup, or choose another model" in refused(steered, "models", "promote", "1")
    steered.model(1).unlink()
    assert "1.safetensors: missing" in refused(steered, "models", "promote", "1")


def test_a_stranger_with_the_shared_key_changes_neither_plan_nor_model(steered: Federation, tmp_path: Path) -> None:
    start(steered)
    steered.finish()
    keys = {"FLOE_SECURITY_OPERATOR_KEY": "eve.pem", "FLOE_SECURITY_OPERATORS": "eve.pub"}
    assert floe(steered, "key", "operator", "eve", variables=keys).returncode == 0
    for arguments in (("plan", "set", "epochs=9"), ("models", "promote", "1")):
        done = floe(steered, *arguments, variables=keys)
        assert done.returncode == 1
        assert "'eve' with this key is no operator here" in done.stderr
    assert steered.query("SELECT * FROM control") == []
    assert asked(steered, "plan", "show")["plan"]["epochs"] == 1


def test_enrolled_too_only_the_operators_whom_the_roster_names_are_followed(federation: Federation) -> None:
    (federation.folder / "secret.key").unlink()
    federation.configure({"rounds": {"count": 3, "devices": 1}})
    assert floe(federation, "federation", "new", "--operator", "opa").returncode == 0
    federation.aggregator()
    federation.until("SELECT * FROM heads")
    assert asked(federation, "plan", "set", "epochs=4")["plan"]["epochs"] == 4
    keys = {"FLOE_SECURITY_OPERATOR_KEY": "eve.pem", "FLOE_SECURITY_OPERATORS": "eve.pub"}
    assert floe(federation, "key", "operator", "eve", variables=keys).returncode == 0
    key = (federation.folder / "eve.pub").read_text().split()[-1]
    assert floe(federation, "federation", "delegate", "eve", "--key", key).returncode == 0  # and not published
    done = floe(federation, "plan", "set", "epochs=9", variables=keys)
    assert done.returncode == 1
    assert "'eve' with this key is no operator here" in done.stderr
    assert asked(federation, "plan", "show")["plan"]["epochs"] == 4
