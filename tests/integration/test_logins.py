"""Members that log in each as itself, by hand as the README says: the broker, its rights, and the way back in."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.broker import free
from helpers.enrolled import session, until
from helpers.federation import DEFAULTS, Federation
from helpers.process import Process

from floe.certificates import load_authority, server_certificate, tls_key
from floe.papers import Papers
from floe.session import Published, Received, Session
from floe.settings import Login, Mqtt
from tests.integration.test_by_hand import code_of, floe, number_of, well

REFUSED = "Not authorized (135)"
DAY = 86_400
ROUNDS = {"count": 200, "devices": 1, "quorum": 1, "grace_s": 1.0, "pause_s": 0.3}
CLOSED = "SELECT * FROM rounds WHERE task = 'train' AND state = 'closed'"


class Place(Federation):
    """A federation whose members log in each as itself; devices have folders of their own, as on other machines."""

    def __init__(self, folder: Path, login: Login) -> None:
        super().__init__(folder, free())
        (folder / "secret.key").unlink()
        self.lobby = free()
        self.login = login
        self.broker_: Process | None = None

    def new(self) -> None:
        """`floe federation new`, its floe.toml with other ports and the plan of these tests."""
        well(self.folder, "federation", "new", "--login", self.login)
        path = self.folder / "floe.toml"
        text = path.read_text().replace("8883", str(self.port)).replace("8884", str(self.lobby))
        sections = {**DEFAULTS, "rounds": ROUNDS}
        for section, keys in sections.items():
            lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            if f"[{section}]\n" in text:
                text = text.replace(f"[{section}]\n", f"[{section}]\n{lines}")
            else:
                text += f"\n[{section}]\n{lines}"
        path.write_text(text)

    def broker(self) -> Process:
        self.broker_ = self.start("broker", "broker")
        self.wait(lambda: "u'broker'" in self.broker_.said(), "the broker was to follow the roster")
        return self.broker_

    def stop_broker(self) -> None:
        assert self.broker_ is not None
        self.broker_.terminate()
        self.broker_.end()
        self.broker_.log.rename(self.broker_.log.with_suffix(f".{time.monotonic_ns()}.log"))

    def at(self, device: str) -> Path:
        path = self.folder / "at" / device
        path.mkdir(parents=True, exist_ok=True)
        return path

    def let_in(self, device: str) -> None:
        log = self.folder / "logs" / f"join-{device}.log"
        code = code_of(self, "--device", device)
        joining = Process(["join", code], self.at(device), log)
        self.processes.append(joining)
        number = number_of(self, joining)
        well(self.folder, "devices", "approve", device, "--number", number)
        assert joining.wait() == 0
        self.plan_at(device)

    def plan_at(self, device: str) -> None:
        """The trainer of these tests, in the device's own floe.toml."""
        with (self.at(device) / "floe.toml").open("a") as file:
            for section in ("plan", "trainers"):
                file.write(f"\n[{section}]\n")
                file.writelines(f"{k} = {json.dumps(v)}\n" for k, v in DEFAULTS[section].items())

    def device(self, name: str) -> Process:
        features = self.features(name)
        process = Process(["client", "--data", str(features)], self.at(name), self.folder / "logs" / f"{name}.log")
        self.processes.append(process)
        return process

    def papers(self, device: str) -> Papers:
        return Papers(self.at(device) / "state" / f"device-{device}" / "access", f"device.{device}")

    def closed(self) -> int:
        return len(self.query(CLOSED))

    def rounds_go_on(self) -> None:
        before = self.closed()
        self.wait(lambda: self.closed() > before + 1, "rounds were to go on")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[[Login], Place]]:
    made: list[Place] = []

    def make(login: Login) -> Place:
        found = Place(tmp_path / "federation", login)
        made.append(found)
        found.new()
        return found

    yield make
    for found in made:
        found.close()


def say(found: Session, topic: str) -> str:
    found._refusals.clear()
    found.publish(topic, b"x")
    event = until(found, lambda event: isinstance(event, Published))[-1]
    assert isinstance(event, Published)
    return event.refusal


@pytest.mark.parametrize("login", ["certificates", "passwords"])
def test_each_gets_in_as_itself_and_a_revoked_device_does_not(place: Callable[[Login], Place], login: Login) -> None:
    made = place(login)
    broker = made.broker()
    aggregator = made.aggregator()
    made.let_in("ann")
    made.let_in("bob")
    ann = made.device("ann")
    made.until(CLOSED)
    mqtt = Mqtt(port=made.port, lobby_port=made.lobby, tls=True, login=login)

    bob = made.papers("bob").access(mqtt)
    with session(made.port, bob, ["floe/#"], "bob") as found:
        assert say(found, "floe/floe/device/bob/status") == ""
        for topic in ("device/ann/status", "device/ann/main/1/manifest", "lineage/main/model", "lineage/main/roster"):
            assert say(found, f"floe/floe/{topic}") == REFUSED
        heard = {event.topic for event in until(found, lambda event: isinstance(event, Received))
                 if isinstance(event, Received)}  # fmt: skip
        assert not any("/to/ann/" in topic for topic in heard)
        pid = broker.pid
        well(made.folder, "devices", "revoke", "bob")
        if login == "certificates":
            until_s = time.monotonic() + 20
            while say(found, "floe/floe/device/bob/status") != REFUSED:
                assert time.monotonic() < until_s
    made.wait(lambda: "rights: 1 device(s)" in broker.said().split("rights: 2 device(s)")[-1], "the rights were to go")
    gone = made.device("bob")
    assert gone.wait() == 5
    assert "device 'bob' has been revoked" in gone.said()

    made.rounds_go_on()
    assert (broker.running, broker.pid, broker.said().count("mosquitto version")) == (True, pid, 2)
    assert ann.running
    assert aggregator.running
    papers = made.papers("ann").public(mqtt)
    assert "approved with its new keys" in well(made.folder, "devices", "rotate", "ann", "--wait", "30")
    made.rounds_go_on()
    assert made.papers("ann").public(mqtt) == papers, "they are not what was changed"
    tail = made.start("tail", "tail")
    made.wait(lambda: "lineage/main/round" in tail.said() and "lineage/main/roster" in tail.said(), "what goes on")


def test_a_broker_that_has_lost_everything_learns_it_again(place: Callable[[Login], Place]) -> None:
    """Whoever is revoked is counted, too, so the aggregator tells it of everybody."""
    made = place("certificates")
    made.broker()
    made.aggregator()
    made.let_in("ann")
    made.let_in("bob")
    well(made.folder, "devices", "revoke", "bob")
    ann = made.device("ann")
    made.until(CLOSED)
    made.stop_broker()
    shutil.rmtree(made.folder / "state" / "broker")
    broker = made.broker()
    made.wait(lambda: "2 cards" in broker.said(), "it was to have the roster again")
    made.rounds_go_on()
    assert ann.running


@pytest.mark.parametrize("login", ["certificates", "passwords"])
def test_a_device_that_is_not_let_in_yet_waits_in_the_lobby(place: Callable[[Login], Place], login: Login) -> None:
    made = place(login)
    made.broker()
    made.aggregator()
    well(made.at("ann"), "join", code_of(made, "--device", "ann"), "--no-wait")
    made.plan_at("ann")
    ann = made.device("ann")
    made.wait(lambda: "looking for news in the lobby" in ann.said(), "the device was to wait")
    well(made.folder, "devices", "approve", "ann", "--yes")
    made.until(CLOSED)
    assert ann.running


def test_a_device_that_was_off_for_months_comes_back_by_itself(place: Callable[[Login], Place]) -> None:
    """Its certificate has expired; that the aggregator has renewed it meanwhile it learns in the lobby."""
    made = place("certificates")
    made.broker()
    made.aggregator("--devices", "1", by=("helpers.dated", "100"))
    made.let_in("ann")
    ann = made.device("ann")
    made.wait(lambda: "refuses our certificate" in ann.said(), "the device was to be refused")
    assert "expired on 20" in ann.said()
    assert made.closed() == 0
    made.processes[1].terminate()
    made.processes[1].end()
    expired = made.papers("ann").certificate.read_text()
    made.aggregator()
    made.wait(lambda: "news in the lobby" in ann.said(), "the device was to hear of it")
    made.rounds_go_on()
    assert made.papers("ann").certificate.read_text() != expired
    assert ann.running


def test_another_authority_takes_over_and_who_was_away_follows(place: Callable[[Login], Place]) -> None:
    """The certificates of broker, aggregator and operator are renewed by it; the head tells the device."""
    made = place("certificates")
    broker = made.broker()
    aggregator = made.aggregator()
    made.let_in("ann")
    made.let_in("bob")
    ann, bob = made.device("ann"), made.device("bob")
    made.until(CLOSED)
    bob.terminate()
    bob.end()
    before = {name: made.papers(name).authority.read_text() for name in ("ann", "bob")}
    assert "another authority, version 4" in well(made.folder, "federation", "authority")
    made.wait(lambda: "made for" in broker.said(), "the broker was to have another certificate")
    made.rounds_go_on()
    bob = made.device("bob")
    made.wait(lambda: "looking for news in the lobby" in bob.said(), "the device was to go to the lobby")
    made.wait(lambda: bob.said().count("connected to") == 2, "and come back")
    made.rounds_go_on()
    assert all(made.papers(name).authority.read_text() != trusted for name, trusted in before.items())
    assert broker.running
    assert aggregator.running
    assert ann.running
    assert bob.running
    assert "ann" in well(made.folder, "devices", "list")


def test_a_broker_whose_certificate_has_expired_is_waited_for(place: Callable[[Login], Place]) -> None:
    """Without the authority's key on its machine nobody renews it: the device says so, and waits."""
    made = place("certificates")
    made.broker()
    made.aggregator()
    made.let_in("ann")
    ann = made.device("ann")
    made.until(CLOSED)
    made.stop_broker()
    access = made.folder / "access"
    key, server = access / "ca.key", Papers(access, "server")
    authority, good = load_authority(access), server.certificate.read_text()
    names = ["127.0.0.1", "localhost"]
    public = tls_key(server.key).public_key()
    server.certificate.write_text(server_certificate(authority, public, names, time.time() - 398 * DAY))
    key.rename(made.folder / "away.key")
    made.start("broker", "broker")
    made.wait(lambda: "its certificate does not verify (certificate has expired)" in ann.said(), "told")
    made.wait(lambda: "ca.key is not here to renew it" in made.said(), "the broker was to say it")
    assert ann.running
    (made.folder / "away.key").rename(key)
    server.certificate.write_text(good)
    os.utime(access / "ca.pem")
    made.wait(lambda: ann.said().count("connected to") > 1, "the device was to come back")
    assert ann.running


def test_what_is_missing_is_said_with_the_way_out(place: Callable[[Login], Place], tmp_path: Path) -> None:
    made = place("certificates")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("floe.toml", "federation.pub"):
        (elsewhere / name).write_bytes((made.folder / name).read_bytes())
    bare = floe(elsewhere, "broker")
    assert bare.returncode == 5
    assert "server.tls.crt: the broker has no certificate here" in bare.stderr
    well(made.folder, "federation", "login", "broker", "--to", str(elsewhere / "access"), "--name", "broker.example")
    assert sorted(path.name for path in (elsewhere / "access").iterdir()) == [
        "broker.tls.crt", "broker.tls.pem", "ca.pem", "server.tls.crt", "server.tls.pem",
    ]  # fmt: skip
    running = Process(["broker"], elsewhere, made.folder / "logs" / "elsewhere.log")
    made.processes.append(running)
    made.wait(lambda: "u'broker'" in running.said(), "it was to follow the roster")


def test_a_device_that_lost_its_tls_key_says_so_and_comes_back_with_a_new_code(place: Callable[[Login], Place]) -> None:
    made = place("certificates")
    made.broker()
    made.aggregator()
    made.let_in("ann")
    made.papers("ann").key.unlink()
    ann = made.device("ann")
    assert ann.wait() == 5
    assert "is not what the roster has of device 'ann'" in ann.said()
    assert "floe invite --device ann" in ann.said()
    assert floe(made.at("ann"), "join").returncode == 5
    well(made.at("ann"), "join", code_of(made, "--device", "ann"), "--no-wait")
    said = well(made.folder, "devices", "approve", "ann", "--yes")
    assert "in the place of the device that had this name" in said
    well(made.at("ann"), "join")
    made.device("ann")
    made.until(CLOSED)
