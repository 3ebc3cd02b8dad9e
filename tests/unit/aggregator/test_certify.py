"""Certificates of devices: the same as long as they last, another when two thirds are over, by whoever signs now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.certify import Certifier
from aggregator.log import Log
from floe.certificates import belongs, expires, load_authority, new_authority, spki, tls_key
from floe.documents import Card, Keys
from floe.settings import Config, Mqtt
from floe.signing import to_text

NOW = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = Log(tmp_path / "log")
    yield found
    found.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    new_authority(tmp_path / "access", "floe", NOW)
    return Config(mqtt=Mqtt(login="certificates", tls=True), folder=tmp_path)


@pytest.fixture
def tls(tmp_path: Path) -> bytes:
    return spki(tls_key(tmp_path / "device.pem"))


def card(log: Log, tls: str, name: str = "ann", state: str = "approved") -> Card:
    row = {"device": name, "state": state, "version": 2, "signing": "k", "suite": "s", "hash": "h", "card": "",
           "changed_at": ""}  # fmt: skip
    log.db.table("roster").upsert(row, pk="device")
    keys = Keys(signing="k", sealing="A" * 43, suites=("aes-256-gcm",), tls=tls)
    return Card(federation="floe", sender="opa", seq=2, key="k", proof="", member=name, state=state, keys=keys)  # type: ignore[arg-type]


def test_a_certificate_stays_for_two_thirds_of_its_time(log: Log, config: Config, tls: bytes) -> None:
    now = NOW
    certifier, ann = Certifier(config, log, lambda: now), card(log, to_text(tls))
    first = certifier.of(ann)
    assert belongs(first, "device.ann", tls, load_authority(config.folder / "access").pem)
    assert expires(first) == NOW + 90 * DAY
    now = NOW + 59 * DAY
    assert (certifier.of(ann), certifier.due()) == (first, [])
    now = NOW + 61 * DAY
    assert certifier.due() == ["ann"]
    assert expires(certifier.of(ann)) == now + 90 * DAY
    assert certifier.due() == []


def test_another_key_and_another_authority_get_another_certificate(
    log: Log, config: Config, tls: bytes, tmp_path: Path
) -> None:
    certifier = Certifier(config, log, lambda: NOW)
    certifier.of(card(log, to_text(tls)))
    second = spki(tls_key(tmp_path / "second.pem"))
    authority = load_authority(config.folder / "access").pem
    assert belongs(certifier.of(card(log, to_text(second))), "device.ann", second, authority)
    (config.folder / "access" / "ca.key").unlink()
    after = new_authority(config.folder / "access", "floe", NOW)
    certifier.refresh()
    assert certifier.due() == ["ann"]
    assert belongs(certifier.of(card(log, to_text(second))), "device.ann", second, after.pem)


def test_without_the_authority_s_key_what_was_made_stays_and_it_is_said(log: Log, config: Config, tls: bytes) -> None:
    ann = card(log, to_text(tls))
    first = Certifier(config, log, lambda: NOW).of(ann)
    (config.folder / "access" / "ca.key").unlink()
    certifier = Certifier(config, log, lambda: NOW + 80 * DAY)
    assert (certifier.of(ann), certifier.of(card(log, to_text(tls), "bob")), certifier.due()) == (first, "", [])
    assert len(list(log.db.query("SELECT * FROM events WHERE kind = 'certificate' AND text LIKE '%no ca.key%'"))) == 1


def test_who_gets_none(log: Log, config: Config, tls: bytes) -> None:
    certifier = Certifier(config, log, lambda: NOW)
    assert certifier.of(card(log, "")) == ""
    assert certifier.of(card(log, to_text(tls), state="revoked")) == ""
    assert certifier.of(card(log, to_text(b"no key"))) == ""
    assert certifier.of(card(log, to_text(tls), "a" * 60)) == ""
    told = [row["text"] for row in log.db.query("SELECT text FROM events WHERE kind = 'certificate'")]
    assert any("no public key" in text for text in told)
    assert any("holds at most 64" in text for text in told)
    assert Certifier(Config(folder=config.folder), log).of(card(log, to_text(tls))) == ""
