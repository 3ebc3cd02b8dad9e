"""`floe check` of what a process needs to get in: the witness of enrolment, keys, certificates, passwords."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers.damage import DAMAGE
from helpers.wire import ANN, EVE

from floe.anchor import load_anchor, write_anchor
from floe.certificates import client_certificate, load_authority, new_authority, tls_key
from floe.check_papers import check_enrolled, check_logins
from floe.findings import Findings
from floe.papers import Papers
from floe.roster import Anchor
from floe.settings import Config, Mqtt

DAY = 86_400.0
CONFIG = Mqtt(tls=True, login="certificates")


def config(folder: Path) -> Config:
    return Config(folder=folder, mqtt=CONFIG)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_anchor(tmp_path / "federation.pub", Anchor("floe", ANN.key))
    found = tmp_path / "state" / "device-ann"
    found.mkdir(parents=True)
    load_anchor(config(tmp_path), found)
    return found


@pytest.fixture
def ann(tmp_path: Path) -> Papers:
    authority, papers = (
        new_authority(tmp_path / "access", "floe", time.time()),
        Papers(tmp_path / "access", "device.ann"),
    )
    pem = client_certificate(authority, "device.ann", papers.public_key(), time.time())
    papers.take(authority.pem, pem)
    papers.hash()
    return papers


def enrolment(folder: Path, state: Path) -> list[str]:
    found = Findings()
    check_enrolled(config(folder), state, found)
    return [str(finding) for finding in found.all]


def logins(ann: Papers) -> list[str]:
    found = Findings()
    check_logins(config(ann.folder), ann.folder, found)
    return [str(finding) for finding in found.all]


def test_a_missing_or_other_anchor_stops_the_process_and_is_damage(tmp_path: Path, state: Path) -> None:
    assert enrolment(tmp_path, state) == []
    (tmp_path / "federation.pub").write_text(f"floe {EVE.key}\n")
    assert "another root than before" in enrolment(tmp_path, state)[0]
    (tmp_path / "federation.pub").unlink()
    [finding] = enrolment(tmp_path, state)
    assert finding.startswith("damaged")
    assert "federation.pub is missing" in finding


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_witness_is_damage(tmp_path: Path, state: Path, damage: str) -> None:
    DAMAGE[damage](state / "enrolled")
    [finding] = enrolment(tmp_path, state)
    assert finding.startswith(f"damaged  {state / 'enrolled'}: ")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["device.ann.tls.pem", "device.ann.tls.crt", "ca.pem", "ca.key"])
def test_what_does_not_read_is_damage(ann: Papers, file: str, damage: str) -> None:
    assert logins(ann) == []
    DAMAGE[damage](ann.folder / file)
    assert any(finding.startswith("damaged") for finding in logins(ann))


def test_what_does_not_belong_to_its_key_is_damage_and_what_has_expired_is_a_note(ann: Papers) -> None:
    authority = load_authority(ann.folder)
    old = client_certificate(authority, "device.ann", ann.public_key(), time.time() - 200 * DAY)
    ann.certificate.write_text(old)
    [finding] = logins(ann)
    assert finding.startswith("note")
    assert "has expired on" in finding
    ann.key.unlink()
    assert "is missing" in logins(ann)[0]
    tls_key(ann.key)
    assert "not the certificate of" in logins(ann)[0]
    ann.password.write_text("")
    assert any("password: empty" in finding for finding in logins(ann))
