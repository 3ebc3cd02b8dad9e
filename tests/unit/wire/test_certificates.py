"""The small authority: what it signs, for how long, and what it refuses to sign."""

from __future__ import annotations

import ipaddress
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from floe.certificates import (
    AUTHORITY_KEY,
    Authority,
    belongs,
    client_certificate,
    expires,
    load_authority,
    needs_renewal,
    new_authority,
    read_certificate,
    server_certificate,
    spki,
    tls_key,
)
from floe.errors import ConfigError, KeyFileError, Refused

NOW = 1_790_000_000.0
DAY = 86_400.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path, "floe", NOW)


def at(authority: Authority, seconds: float) -> PolicyBuilder:
    """An independent judge (cryptography's path validation, RFC 5280), at a time after `NOW`."""
    moment = datetime.fromtimestamp(NOW + seconds, UTC)
    return PolicyBuilder().store(Store([authority.certificate])).time(moment)


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_an_authority_is_made_once_private_and_found_again(tmp_path: Path, authority: Authority) -> None:
    found = load_authority(tmp_path)
    assert found.pem == authority.pem
    assert found.private.private_numbers() == authority.private.private_numbers()
    assert stat.S_IMODE((tmp_path / AUTHORITY_KEY).stat().st_mode) == 0o600
    assert expires(authority.pem) == NOW + 20 * 365 * DAY
    with pytest.raises(KeyFileError, match=r"ca\.key: exists already, and is never overwritten"):
        new_authority(tmp_path, "floe", NOW)
    assert load_authority(tmp_path).pem == authority.pem


def test_an_authority_that_does_not_fit_its_key_is_refused(tmp_path: Path, authority: Authority) -> None:
    new_authority(tmp_path / "other", "floe", NOW)
    (tmp_path / "ca.pem").write_text((tmp_path / "other" / "ca.pem").read_text())
    with pytest.raises(KeyFileError, match=r"ca\.pem: not the certificate of .*ca\.key"):
        load_authority(tmp_path)
    (tmp_path / "ca.pem").write_text("no PEM")
    with pytest.raises(KeyFileError, match=r"ca\.pem: not a certificate in PEM"):
        load_authority(tmp_path)
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(KeyFileError, match=r"ca\.pem: cannot be read"):
        load_authority(tmp_path)


def test_a_broker_is_known_by_its_names_and_addresses_for_397_days(authority: Authority) -> None:
    pem = server_certificate(authority, key().public_key(), ["127.0.0.1", "::1", "Broker.Local", "127.0.0.1"], NOW)
    found = read_certificate(pem)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.local"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert expires(pem) == NOW + 397 * DAY
    verifier = at(authority, 396 * DAY).build_server_verifier(x509.DNSName("broker.local"))
    assert verifier.verify(found, [])[0] == found
    for late, name in ((398 * DAY, "broker.local"), (0.0, "else.local")):
        with pytest.raises(VerificationError):
            at(authority, late).build_server_verifier(x509.DNSName(name)).verify(found, [])


@pytest.mark.parametrize("name", ["", "a b", "*.local", "-a", "a..b", "ä.de", "a\n", "x" * 254, "host:1883"])
def test_what_is_no_host_gets_no_certificate(authority: Authority, name: str) -> None:
    with pytest.raises(ConfigError, match="IP addresses and host names"):
        server_certificate(authority, key().public_key(), [name], NOW)


def test_a_client_is_known_by_its_login_for_90_days_and_is_no_broker(authority: Authority) -> None:
    pem = client_certificate(authority, "device.ann", spki(key()), NOW)
    found = read_certificate(pem)
    assert found.subject.rfc4514_string() == "CN=device.ann"
    assert expires(pem) == NOW + 90 * DAY
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(VerificationError):
        at(authority, 0).build_server_verifier(x509.DNSName("device.ann")).verify(found, [])


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(authority: Authority) -> None:
    pem = client_certificate(authority, "device.ann", spki(key()), NOW)
    third = 91 * DAY / 3  # it began a day early
    assert not needs_renewal(pem, expires(pem) - third - 1)
    assert needs_renewal(pem, expires(pem) - third + 1)
    assert needs_renewal(pem, expires(pem) + 1)


@pytest.mark.parametrize(
    "login", ["", "ann", "device.", "device.Ann", "device.ann\n", "device.ann,CN=broker", f"device.{'a' * 58}"]
)
def test_what_is_no_login_gets_no_certificate(authority: Authority, login: str) -> None:
    with pytest.raises(Refused, match="no login for a certificate"):
        client_certificate(authority, login, spki(key()), NOW)


def test_the_longest_name_that_a_certificate_holds(authority: Authority) -> None:
    client_certificate(authority, f"device.{'a' * 57}", spki(key()), NOW)


def test_keys_of_a_peer_that_are_none_or_of_another_kind_are_refused(authority: Authority) -> None:
    others = (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
    ders = [other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for other in others]
    for der in (b"", b"\x30\x00", spki(key())[:-1], *ders):
        with pytest.raises(Refused, match="malformed"):
            client_certificate(authority, "device.ann", der, NOW)


def test_a_certificate_belongs_to_its_login_its_key_and_its_authority(tmp_path: Path, authority: Authority) -> None:
    mine, other = spki(key()), new_authority(tmp_path / "other", "floe", NOW)
    pem = client_certificate(authority, "device.ann", mine, NOW)
    assert belongs(pem, "device.ann", mine, authority.pem)
    assert not belongs(pem, "device.bob", mine, authority.pem)
    assert not belongs(pem, "device.ann", spki(key()), authority.pem)
    assert not belongs(pem, "device.ann", mine, other.pem), "an authority of the same name, with another key"
    assert not belongs("no PEM", "device.ann", mine, authority.pem)
    assert not belongs(pem, "device.ann", mine, "")


def test_a_key_for_tls_is_made_once_and_one_that_others_read_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "tls.key"
    assert spki(tls_key(path)) == spki(tls_key(path))
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match=r"tls\.key: mode 0640 lets others read it"):
        tls_key(path)
    other = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="an EC P-256 key is needed"):
        tls_key(path)
    path.write_bytes(b"no PEM")
    with pytest.raises(KeyFileError, match="not a private key in PEM"):
        tls_key(path)
