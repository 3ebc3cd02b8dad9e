"""Enrolment by hand, as the README says: invited, joined, approved, revoked, rotated, with real processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.federation import Federation
from helpers.process import Process, environment
from helpers.proxy import DROP, PASS, Message, Proxy, Verdict

from floe.documents import JoinReply
from floe.identity import load_identity
from floe.session import Session
from floe.settings import Mqtt
from floe.topics import CurrentRoster, JoinReplyTo

ROOT = Path(__file__).resolve().parents[2]


def floe(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "floe", *arguments]
    env = environment({"PYTHONPATH": str(ROOT), **(env or {})})
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def well(folder: Path, *arguments: str) -> str:
    done = floe(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    lines = well(folder, "devices", "list", "--json").splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


@pytest.fixture
def enrolled(federation: Federation) -> Federation:
    """A federation with a root, an operator and a running aggregator; no device yet."""
    return founded(federation)


def founded(federation: Federation, **more: object) -> Federation:
    (federation.folder / "secret.key").unlink()
    rounds = {"count": 50, "devices": 1, "quorum": 1, "grace_s": 600.0, "pause_s": 0.2, **more}
    federation.configure({"rounds": rounds})
    well(federation.folder, "federation", "new", "--operator", "opa")
    federation.aggregator()
    federation.wait(lambda: bool(federation.query("SELECT * FROM heads")), "the aggregator has its roster")
    return federation


def code_of(federation: Federation, *arguments: str) -> str:
    return well(federation.folder, "invite", *arguments).splitlines()[-1]


def joining(federation: Federation, device: str, *arguments: str) -> Process:
    """`floe join` on another machine: a folder of the device's own."""
    (federation.folder / "at" / device).mkdir(parents=True, exist_ok=True)
    log = federation.folder / "logs" / f"join-{device}.log"
    process = Process(["join", *arguments], federation.folder / "at" / device, log)
    federation.processes.append(process)
    return process


def number_of(federation: Federation, process: Process) -> str:
    federation.wait(lambda: "number" in process.said(), "the device shows its number")
    found = re.search(r"number (\d{3}) (\d{3})", process.said())
    assert found, process.said()
    return found[1] + found[2]


def let_in(federation: Federation, device: str, *arguments: str) -> None:
    """The device joins from the federation's own folder, so that `Federation.client` can run it."""
    code = code_of(federation, "--device", device)
    well(federation.folder, "join", code, "--id", device, "--no-wait", *arguments)
    well(federation.folder, "devices", "approve", device, "--yes")
    well(federation.folder, "join", "--id", device)


def test_a_device_is_invited_joins_and_is_approved_by_its_number(enrolled: Federation) -> None:
    code = code_of(enrolled, "--device", "ann", "--png", "code.png", "--svg", "code.svg")
    assert (enrolled.folder / "code.svg").read_text().startswith("<?xml")
    process = joining(enrolled, "ann", "--image", str(enrolled.folder / "code.png"))
    number = number_of(enrolled, process)
    row = listed(enrolled.folder)["ann"]
    assert (row["state"], row["number"]) == ("pending", number)

    wrong = f"{(int(number) + 1) % 10**6:06}"
    refused = floe(enrolled.folder, "devices", "approve", "ann", "--number", wrong)
    assert refused.returncode == 1
    assert f"its number is {number[:3]} {number[3:]}, not {wrong}" in refused.stderr
    silent = floe(enrolled.folder, "devices", "approve", "ann")
    assert silent.returncode == 2
    assert f"--number {number}" in silent.stderr
    assert process.running
    assert listed(enrolled.folder)["ann"]["state"] == "pending"

    spaced = f"{number[:3]} {number[3:]}"
    assert "version 2" in well(enrolled.folder, "devices", "approve", "ann", "--number", spaced)
    enrolled.wait(lambda: not process.running, "the device hears that it is a member")
    assert "ann is a member of 'floe'; next: floe client --data FOLDER" in process.said()
    assert code[:40] not in process.said()
    folder = enrolled.folder / "at" / "ann"
    assert "already" in well(folder, "join")
    assert not (folder / "state" / "device-ann" / "join.json").exists()
    keys = folder / "state" / "device-ann" / "keys"
    assert [oct(path.stat().st_mode & 0o777) for path in (keys, *sorted(keys.iterdir()))] == ["0o700", "0o600", "0o600"]
    assert "approved already" in well(enrolled.folder, "devices", "approve", "ann", "--yes")


def test_join_goes_on_after_a_kill_with_the_same_request(enrolled: Federation) -> None:
    process = joining(enrolled, "ann", code_of(enrolled), "--id", "ann")
    number = number_of(enrolled, process)
    process.kill()
    again = joining(enrolled, "ann")
    enrolled.wait(lambda: again.said().count(f"number {number[:3]} {number[3:]}") >= 3, "the same number again")
    well(enrolled.folder, "devices", "approve", "ann", "--number", number)
    enrolled.wait(lambda: not again.running, "approved")
    assert again.wait() == 0


def test_a_rejected_device_is_told_and_may_come_with_a_new_code(enrolled: Federation) -> None:
    process = joining(enrolled, "ann", code_of(enrolled), "--id", "ann")
    first = number_of(enrolled, process)
    assert floe(enrolled.folder, "devices", "reject", "bob").returncode == 1
    well(enrolled.folder, "devices", "reject", "ann")
    enrolled.wait(lambda: not process.running, "the device hears that it is rejected")
    assert process.wait() == 5
    assert "'ann' has been rejected by an operator. Ask for a new code to try again" in process.said()
    folder = enrolled.folder / "at" / "ann"
    assert floe(folder, "join").returncode == 5
    second = well(folder, "join", code_of(enrolled), "--no-wait").split()
    assert "".join(second[1:]) != first
    assert listed(enrolled.folder)["ann"]["state"] == "pending"


def test_a_stolen_invitation_is_of_no_use_once_it_was_used(enrolled: Federation) -> None:
    code = code_of(enrolled)
    number_of(enrolled, joining(enrolled, "ann", code, "--id", "ann"))
    thief = joining(enrolled, "eve", code, "--id", "eve")
    enrolled.wait(lambda: not thief.running, "refused")
    assert thief.wait() == 5
    assert "used by somebody else" in thief.said()
    assert set(listed(enrolled.folder)) == {"ann"}


def test_a_member_takes_part_is_rotated_and_revoked(enrolled: Federation) -> None:
    let_in(enrolled, "ann")
    device = enrolled.client("ann")
    enrolled.until("SELECT * FROM rounds WHERE task = 'train' AND state = 'closed'")
    before = listed(enrolled.folder)["ann"]["fingerprint"]
    assert "approved with its new keys" in well(enrolled.folder, "devices", "rotate", "ann", "--wait", "30")
    assert listed(enrolled.folder)["ann"]["fingerprint"] != before
    done = len(enrolled.query("SELECT * FROM rounds WHERE state = 'closed'"))
    enrolled.wait(
        lambda: len(enrolled.query("SELECT * FROM rounds WHERE state = 'closed'")) > done + 1, "rounds under new keys"
    )
    assert device.running
    well(enrolled.folder, "devices", "revoke", "ann")
    enrolled.wait(lambda: not device.running, "the revoked device ends")
    assert "revoked" in device.said()
    assert "already" in well(enrolled.folder, "devices", "revoke", "ann")
    let_in(enrolled, "ann")  # it comes back as it went: with an invitation
    assert listed(enrolled.folder)["ann"]["state"] == "approved"


def test_other_keys_are_let_in_by_name_only(enrolled: Federation) -> None:
    """They may be those of whoever has stolen the old ones: nobody lets them in with a crowd."""
    let_in(enrolled, "ann")
    enrolled.client("ann")
    before = listed(enrolled.folder)["ann"]["fingerprint"]
    assert "floe devices approve ann" in well(enrolled.folder, "devices", "rotate", "ann")
    enrolled.wait(lambda: listed(enrolled.folder)["ann"]["state"] == "rotating", "the device has made other keys")
    crowd = floe(enrolled.folder, "devices", "approve", "--all-pending", "--yes")
    assert crowd.returncode == 0
    assert "ann asks for other keys: `floe devices approve ann` if an operator has asked for them" in crowd.stderr
    again = floe(enrolled.folder, "devices", "rotate", "ann", "--wait", "1")
    assert again.returncode == 1
    assert "has a request open already (rotating)" in again.stderr
    assert listed(enrolled.folder)["ann"]["state"] == "rotating"
    assert "approved with its new keys" in well(enrolled.folder, "devices", "approve", "ann")
    assert listed(enrolled.folder)["ann"]["fingerprint"] != before


def test_a_rotation_of_who_is_no_member_is_refused(enrolled: Federation) -> None:
    refused = floe(enrolled.folder, "devices", "rotate", "ann")
    assert refused.returncode == 1
    assert "'ann' is not approved" in refused.stderr


def test_a_device_that_signs_with_rsa_joins(enrolled: Federation) -> None:
    let_in(enrolled, "ann", "--rsa")
    assert len(listed(enrolled.folder)["ann"]["keys"]["signing"]) > 300


def test_many_are_let_in_over_one_connection(enrolled: Federation) -> None:
    names = [f"d{number}" for number in range(5)]
    codes = well(enrolled.folder, "invite", "--json", *(f"--device={name}" for name in names))
    for line in codes.splitlines():
        invited = json.loads(line)
        well(enrolled.folder, "join", invited["code"], "--id", invited["device"], "--no-wait")
    said = well(enrolled.folder, "devices", "approve", "--all-pending", "--yes")
    assert said.count("approved, version") == 5
    assert {row["state"] for row in listed(enrolled.folder).values()} == {"approved"}


def test_a_name_of_an_operator_or_a_lineage_is_no_device_s(enrolled: Federation) -> None:
    for name in ("opa", "main"):
        well(enrolled.folder, "join", code_of(enrolled), "--id", name, "--no-wait")
        refused = floe(enrolled.folder, "devices", "approve", name, "--yes")
        assert refused.returncode == 1
        assert "choose another" in refused.stderr or "under another --id" in refused.stderr


def test_an_operator_is_named_anew_and_the_members_are_told(enrolled: Federation) -> None:
    other = enrolled.folder / "other"
    other.mkdir()
    for name in ("federation.pub", "floe.toml"):
        (other / name).write_bytes((enrolled.folder / name).read_bytes())
    well(other, "key", "operator", "bea")
    key = (other / "operators.pub").read_text().split()[1]
    nobody = floe(other, "devices", "list")
    assert nobody.returncode == 5
    assert "operators.delegation: missing" in nobody.stderr
    (other / "operators.delegation").write_bytes((enrolled.folder / "operators.delegation").read_bytes())
    stranger = floe(other, "devices", "list")
    assert stranger.returncode == 5
    assert f"{key} is none of delegation 1, which names opa" in stranger.stderr

    well(enrolled.folder, "federation", "delegate", "bea", "--key", key, "--remove", "opa")
    (other / "operators.delegation").write_bytes((enrolled.folder / "operators.delegation").read_bytes())
    assert "delegation 2 published, version 2" in well(other, "federation", "publish")
    assert "nothing to publish" in well(other, "federation", "publish")
    assert well(other, "round", "status")
    former = floe(enrolled.folder, "devices", "list")
    assert former.returncode == 5
    assert "none of delegation 2, which names bea" in former.stderr


def test_two_operators_at_the_same_time_both_get_what_they_ask_for(enrolled: Federation) -> None:
    other = enrolled.folder / "other"
    other.mkdir()
    for name in ("federation.pub", "floe.toml"):
        (other / name).write_bytes((enrolled.folder / name).read_bytes())
    well(other, "key", "operator", "bea")
    well(enrolled.folder, "federation", "delegate", "bea", "--key", (other / "operators.pub").read_text().split()[1])
    (other / "operators.delegation").write_bytes((enrolled.folder / "operators.delegation").read_bytes())
    well(enrolled.folder, "federation", "publish")
    names = [f"{folder}{number}" for folder in "ab" for number in range(6)]
    for line in well(enrolled.folder, "invite", "--json", *(f"--device={name}" for name in names)).splitlines():
        invited = json.loads(line)
        well(enrolled.folder, "join", invited["code"], "--id", invited["device"], "--no-wait")
    both = []
    for folder, mine in ((enrolled.folder, names[:6]), (other, names[6:])):
        log = enrolled.folder / "logs" / f"approve-{mine[0]}.log"
        both.append(Process(["devices", "approve", *mine, "--yes"], folder, log))
    enrolled.processes += both
    assert [process.wait() for process in both] == [0, 0]
    versions = {row["version"] for row in listed(enrolled.folder).values()}
    assert versions == set(range(3, 15))


def test_a_restored_aggregator_goes_on_in_an_epoch_that_an_operator_signs(enrolled: Federation) -> None:
    assert "epoch 2, version 2" in well(enrolled.folder, "federation", "restored")


def test_a_head_that_goes_back_and_a_reply_of_another_key_are_not_believed(enrolled: Federation) -> None:
    """What a broker can do: publish an old head, or another's reply. The command waits for the right one."""
    heads = []
    session = Session(Mqtt(port=enrolled.port), "broker", [str(CurrentRoster("floe", "main"))], None)
    session.connect(lambda: False, lambda text: None)
    until = time.monotonic() + 30
    while not heads and time.monotonic() < until:
        event = session.next(0.1)
        heads += [getattr(event, "payload", b"")] if hasattr(event, "payload") else []
    well(enrolled.folder, "federation", "restored")
    well(enrolled.folder, "devices", "list")
    enrolled.processes[0].kill()
    session.publish(str(CurrentRoster("floe", "main")), heads[0], retain=True)
    lonely = floe(enrolled.folder, "devices", "list", "--reply", "1")
    assert lonely.returncode == 4
    assert "version 1 goes back behind version 2" in lonely.stderr
    session.close()


def test_a_forged_answer_lets_nobody_believe_to_be_a_member(enrolled: Federation, tmp_path: Path) -> None:
    process = joining(enrolled, "ann", code_of(enrolled), "--id", "ann")
    number_of(enrolled, process)
    eve = load_identity(tmp_path / "eve", "main")
    reply = JoinReply(
        federation="floe", sender="main", key=eve.key, proof="", seq=1, to="ann", to_key=eve.key, nonce="0" * 32,
        challenge="", state="rejected", version=1, detail="go away",
    )  # fmt: skip
    session = Session(Mqtt(port=enrolled.port), "eve", [], None)
    session.connect(lambda: False, lambda text: None)
    session.publish(str(JoinReplyTo("floe", "main", "ann")), eve.sign(reply))
    enrolled.wait(lambda: "refused floe/floe/lineage/main/to/ann/join: unknown-key" in process.said(), "not believed")
    assert process.running
    session.close()


def lost_update(message: Message) -> Verdict:
    """A rule: a device's trained update is never announced."""
    return DROP if message.upward and b'"task":"train"' in message.payload and "/manifest" in message.topic else PASS


def test_the_aggregator_changes_its_keys_and_devices_follow_also_one_that_slept(federation: Federation) -> None:
    """Twice, so that the sleeper wakes two keys later, with an update that waits; the newest key signs the models."""
    enrolled = founded(federation, count=1000, late="merge", max_staleness=1000)
    for device in ("ann", "bob"):
        let_in(enrolled, device)
    ann = enrolled.client("ann")
    enrolled.until("SELECT * FROM rounds WHERE round = 1 AND state = 'closed' AND task = 'train'")
    outbox = enrolled.folder / "state" / "device-bob" / "outbox"
    with Proxy(enrolled.port, lost_update) as proxy:
        bob = enrolled.client("bob", port=proxy.port)
        enrolled.wait(lambda: bool(list(outbox.glob("*.json"))), "an update of bob's waits")
        bob.kill()
    (waiting,) = outbox.glob("*.json")
    keys = enrolled.folder / "state" / "aggregator-main" / "keys"
    before = {load_identity(keys, "main").key}
    for version in (4, 5):
        assert f"version {version}" in well(enrolled.folder, "federation", "rotate")
        enrolled.wait(lambda: load_identity(keys, "main").key not in before, "the aggregator has its other key")
        before.add(load_identity(keys, "main").key)
    assert len(before) == 3
    assert not keys.with_name("keys-next").exists()
    assert list(outbox.glob("*.json")) == [waiting]
    enrolled.client("bob")
    enrolled.until("SELECT * FROM updates WHERE transfer = ? AND outcome = 'accepted'", waiting.stem)
    (now,) = enrolled.query("SELECT max(round) AS round FROM rounds")
    enrolled.until("SELECT * FROM updates WHERE device = 'bob' AND outcome = 'accepted' AND round > ?", now["round"])
    assert ann.running
    for process in enrolled.processes:
        process.terminate()
    assert "all is well" in well(enrolled.folder, "check")
