"""What a login gets in with: made, kept, renewed, carried elsewhere; and what is said where it cannot be."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from floe.access import Tls
from floe.certificates import (
    client_certificate,
    expires,
    load_authority,
    new_authority,
    server_certificate,
    tls_key,
)
from floe.errors import AccessError, ConfigError, KeyFileError
from floe.logins import is_hash
from floe.papers import HASHES, Papers, entrance, hashes, lobby, renew_server, server_names
from floe.secure import carry, furnish, settle
from floe.settings import Broker, Config, Login, Mqtt

NOW = 1_800_000_000.0
DAY = 86_400.0
NAMES = ["broker.example", "127.0.0.1"]


def mqtt(login: Login = "certificates") -> Mqtt:
    return Mqtt(tls=True, port=8883, lobby_port=8884, login=login)


@pytest.fixture
def ann(tmp_path: Path) -> Papers:
    return Papers(tmp_path / "access", "device.ann")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with an authority."""
    new_authority(tmp_path / "here", "floe", NOW)
    return tmp_path / "here"


def test_with_a_shared_login_it_is_the_configuration_s(ann: Papers) -> None:
    shared = Mqtt(username="fleet", password="secret")
    access = ann.access(shared)
    assert (access.username, access.password, access.tls) == ("fleet", "secret", None)
    assert ann.access(msgspec.structs.replace(shared, tls=True)).tls == Tls()
    assert ann.public(shared) == ("", "")
    assert not ann.folder.exists()


def test_a_password_is_made_once_and_its_hash_stays_the_same(ann: Papers) -> None:
    login, tls = ann.public(mqtt("passwords"))
    assert (is_hash(login), tls) == (True, "")
    assert Papers(ann.folder, "device.ann").public(mqtt("passwords")) == (login, "")
    assert Papers(ann.folder, "device.bob").hash() != login
    assert hashes(ann.folder)["device.ann"] == login
    access = ann.access(mqtt("passwords"))
    assert (access.username, len(access.password)) == ("device.ann", 43)
    assert ann.password.stat().st_mode & 0o777 == 0o600
    assert ann.folder.stat().st_mode & 0o777 == 0o700
    ann.password.unlink()
    assert ann.hash() != login, "another password, another hash"


def test_what_is_missing_or_open_to_others_is_said(ann: Papers) -> None:
    with pytest.raises(KeyFileError, match=r"device\.ann\.password: no password of 'device\.ann' here"):
        ann.access(mqtt("passwords"))
    with pytest.raises(AccessError, match=r"device\.ann\.tls\.crt: no certificate"):
        ann.access(mqtt())
    ann.hash()
    (ann.folder / HASHES).write_text("device.ann:secret\n")
    with pytest.raises(KeyFileError, match="passwords: not `login:hash` a line"):
        hashes(ann.folder)
    ann.folder.chmod(0o755)
    with pytest.raises(KeyFileError, match="mode 0755 lets others in"):
        ann.access(mqtt("passwords"))


def test_a_certificate_is_taken_if_it_is_ours_and_of_the_authority(ann: Papers, here: Path, tmp_path: Path) -> None:
    authority, other = load_authority(here), new_authority(tmp_path / "other", "floe", NOW)
    ann.public(mqtt())
    mine = client_certificate(authority, "device.ann", ann.public_key(), NOW)
    assert ann.take(authority.pem, mine)
    assert not ann.take(authority.pem, mine), "no news"
    assert not ann.take("", ""), "nothing is taken away"
    for wrong in (
        client_certificate(other, "device.ann", ann.public_key(), NOW),
        client_certificate(authority, "device.bob", ann.public_key(), NOW),
        client_certificate(authority, "device.ann", Papers(here, "x").public_key(), NOW),
        "no certificate",
    ):
        assert not ann.take(authority.pem, wrong)
    assert ann.access(mqtt()).tls == Tls(ann.authority, certificate=ann.certificate, key=ann.key)
    renewed = client_certificate(authority, "device.ann", ann.public_key(), NOW + 60 * DAY)
    assert ann.take(other.pem + authority.pem, "")
    assert not ann.take(other.pem + authority.pem, renewed), "of the authority before"
    assert ann.take(authority.pem, renewed)


def test_a_fixed_login_is_renewed_where_the_authority_s_key_is(here: Path) -> None:
    opa = Papers(here, "operator.opa")
    assert "made, until" in opa.renew(NOW)
    before = opa.certificate.read_text()
    assert opa.renew(NOW + 200 * DAY) == ""
    assert "made, until" in opa.renew(NOW + 270 * DAY)
    assert expires(opa.certificate.read_text()) == NOW + (270 + 397) * DAY
    (here / "ca.key").unlink()
    assert opa.renew(NOW + 300 * DAY) == ""
    opa.certificate.write_text(before)
    assert "ca.key is not here to renew it" in opa.renew(NOW + 300 * DAY)


def test_a_broker_s_certificate_keeps_its_names_and_follows_the_configuration(here: Path) -> None:
    assert "made for broker.example, 127.0.0.1, until" in renew_server(here, NAMES, NOW)
    assert renew_server(here, NAMES[:1], NOW) == ""
    assert "made for other.example, broker.example, 127.0.0.1" in renew_server(here, ["other.example"], NOW)
    assert "made for" in renew_server(here, NAMES, NOW + 300 * DAY)
    (here / "ca.key").unlink()
    assert renew_server(here, NAMES, NOW + 301 * DAY) == ""
    assert "make a new one with `floe federation login`" in renew_server(here, NAMES, NOW + 600 * DAY)
    (here / "server.tls.crt").unlink()
    with pytest.raises(KeyFileError, match="the broker has no certificate here"):
        renew_server(here, NAMES, NOW)


def test_a_broker_s_certificate_of_another_authority_is_made_anew(here: Path, tmp_path: Path) -> None:
    other = new_authority(tmp_path / "other", "floe", NOW)
    public = tls_key(here / "server.tls.pem").public_key()
    (here / "server.tls.crt").write_text(server_certificate(other, public, NAMES, NOW))
    assert "made for" in renew_server(here, NAMES, NOW)
    (here / "server.tls.crt").write_text("no PEM")
    assert "made for" in renew_server(here, NAMES, NOW)


def test_names_of_a_broker() -> None:
    assert server_names("broker.example", "0.0.0.0") == ["broker.example", "localhost", "127.0.0.1", "::1"]
    assert "10.0.0.1" in server_names("broker.example", "10.0.0.1")


def test_the_lobby_is_not_verified_and_needs_no_login() -> None:
    there, access = lobby(mqtt())
    assert access is not None
    assert (there.port, access.username, access.tls) == (8884, "", Tls(verify=False))
    assert lobby(Mqtt(port=1883)) == (Mqtt(port=1883), None)


@pytest.mark.parametrize("login", ["certificates", "passwords"])
def test_a_new_federation_has_what_its_fixed_logins_need(tmp_path: Path, login: Login) -> None:
    config = Config(mqtt=mqtt(login), folder=tmp_path)
    ca = furnish(config, "opa", time.time())
    assert ca == (tmp_path / "access" / "ca.pem").read_text()
    assert furnish(config, "opa", time.time()) == ca, "after an interruption it goes on"
    for name in ("broker", "lineage.main", "operator.opa"):
        assert entrance(config, name).tls is not None
    assert set(hashes(tmp_path / "access")) == (
        {"broker", "lineage.main", "operator.opa"} if login == "passwords" else set()
    )
    assert furnish(Config(folder=tmp_path / "clear"), "opa", NOW) == ""
    assert not (tmp_path / "clear").exists()


def test_floe_toml_is_written_where_there_is_none_and_asked_for_where_there_is(tmp_path: Path) -> None:
    made = settle(Config(mqtt=Mqtt(login="passwords", host="broker.example"), folder=tmp_path))
    assert (made.mqtt.port, made.mqtt.lobby_port, made.mqtt.tls, made.mqtt.login) == (8883, 8884, True, "passwords")
    assert (made.mqtt.host, made.broker, made.file) == (
        "broker.example",
        Broker(bind="0.0.0.0"),
        tmp_path / "floe.toml",
    )
    assert settle(made) == made
    (tmp_path / "floe.toml").write_text("[mqtt]\nport = 8000\n")
    with pytest.raises(
        ConfigError, match=r"add this to its \[mqtt\]:\nport = 8000\ntls = true\nlobby_port = 8884\nlogin"
    ):
        settle(Config(mqtt=Mqtt(login="certificates", port=8000), folder=tmp_path, file=tmp_path / "floe.toml"))
    assert settle(Config()) == Config()


def test_what_a_broker_or_an_operator_elsewhere_needs_is_carried_there(tmp_path: Path) -> None:
    config = Config(mqtt=mqtt("passwords"), folder=tmp_path)
    furnish(config, "opa", NOW)
    files = carry(config, "broker", tmp_path / "usb", ["far.example"], NOW)
    assert [path.name for path in files] == [
        "ca.pem", "broker.password", "server.tls.pem", "server.tls.crt", "passwords",
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert "far.example" in renew_server(tmp_path / "access", ["again.example"], NOW)
    assert [path.name for path in carry(config, "operator.bea", tmp_path / "bea", [], NOW)] == [
        "ca.pem", "operator.bea.password",
    ]  # fmt: skip
    assert "operator.bea" in hashes(tmp_path / "access")
    with pytest.raises(ConfigError, match="not empty"):
        carry(config, "operator.bea", tmp_path / "bea", [], NOW)
    with pytest.raises(ConfigError, match=r"allowed is broker, operator\.NAME or lineage\.NAME"):
        carry(config, "device.ann", tmp_path / "ann", [], NOW)
    with pytest.raises(ConfigError, match="nobody logs in as broker there"):
        carry(Config(folder=tmp_path), "broker", tmp_path / "x", [], NOW)
    elsewhere = replace(Papers(tmp_path / "usb", "x"), login="broker")
    assert elsewhere.access(config.mqtt) == Papers(tmp_path / "usb", "broker").access(config.mqtt)
    (tmp_path / "access" / "ca.key").unlink()
    with pytest.raises(KeyFileError, match=r"ca\.key: missing"):
        carry(config, "broker", tmp_path / "y", [], NOW)


def test_a_lost_key_takes_its_certificate_with_it(ann: Papers, here: Path) -> None:
    authority = load_authority(here)
    ann.public(mqtt())
    mine = client_certificate(authority, "device.ann", ann.public_key(), NOW)
    ann.take(authority.pem, mine)
    ann.key.unlink()
    with pytest.raises(AccessError, match="here that goes with its key"):
        ann.access(mqtt())
    ann.public(mqtt())
    assert not ann.certificate.exists()
    assert not ann.take(authority.pem, mine)
    ann.certificate.write_text(mine)
    with pytest.raises(AccessError, match="goes with its key"):
        ann.access(mqtt())
    assert ann.take(authority.pem, client_certificate(authority, "device.ann", ann.public_key(), NOW))
    ann.access(mqtt())
