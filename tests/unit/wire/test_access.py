"""What an error of TLS says, and what it does not; what [mqtt] alone says of access."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from floe.access import Access, Tls, access_of, explain
from floe.errors import AccessError
from floe.settings import Mqtt

OURS = Path("/keys/device.pem")


def explained(reason: str, tls: Tls, kind: type[ssl.SSLError] = ssl.SSLError) -> AccessError | None:
    error = kind(1, f"[SSL: {reason}] (_ssl.c:1)")
    error.reason = reason
    return explain(error, "10.0.0.1", 8883, tls)


@pytest.mark.parametrize(
    ("reason", "fault", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate", "nobody without a certificate, and we have none"),
        ("WRONG_VERSION_NUMBER", "no-tls", "check [mqtt] port and tls"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no-tls", "check [mqtt] port and tls"),
    ],
)
def test_what_will_not_pass_is_told_with_the_place(reason: str, fault: str, words: str) -> None:
    found = explained(reason, Tls())
    assert found is not None
    assert found.fault == fault
    assert words in str(found)
    assert "10.0.0.1:8883" in str(found)


@pytest.mark.parametrize(
    "reason",
    [
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
    ],
)
def test_an_alert_about_our_certificate_names_its_file(reason: str) -> None:
    found = explained(reason, Tls(certificate=OURS))
    assert found is not None
    assert (found.fault, "refuses our certificate /keys/device.pem" in str(found)) == ("certificate", True)


@pytest.mark.parametrize(
    "reason", ["TLSV1_ALERT_INTERNAL_ERROR", "SSLV3_ALERT_CLOSE_NOTIFY", "UNEXPECTED_EOF_WHILE_READING"]
)
def test_what_may_pass_is_tried_again(reason: str) -> None:
    assert explained(reason, Tls(certificate=OURS)) is None


def test_a_connection_that_just_ends_says_nothing_of_certificates() -> None:
    assert explained("UNEXPECTED_EOF_WHILE_READING", Tls(), ssl.SSLEOFError) is None


def test_without_more_access_is_what_mqtt_says() -> None:
    assert access_of(Mqtt()) == Access()
    assert access_of(Mqtt(username="fleet", password="x")) == Access("fleet", "x")
    assert access_of(Mqtt(tls=True)).tls == Tls()


def test_who_is_verified_is_asked_for_name_and_chain_and_nothing_below_tls_1_2() -> None:
    context = Tls().context()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    lobby = Tls(verify=False).context()
    assert (lobby.check_hostname, lobby.verify_mode) == (False, ssl.CERT_NONE)
    assert lobby.minimum_version == ssl.TLSVersion.TLSv1_2
