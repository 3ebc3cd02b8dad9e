"""What Mosquitto is told, and what is refused before it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.members import Members
from broker.render import ACL, PASSWORDS, ServerFiles, check, configuration, files, is_loopback
from floe.errors import ConfigError
from floe.settings import Broker, Config, Federation, Mqtt

FOLDER = Path("/run/floe")


def options(text: str) -> dict[str, list[str]]:
    """The lines of a mosquitto.conf or ACL that are not comments: option -> values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition(" ")
            found.setdefault(key, []).append(value)
    return found


def access(config: Config) -> str:
    """The ACL of a broker whose clients share a login."""
    return files(config, None)[ACL]


def with_login(username: str = "fleet", password: str = "a secret", bind: str = "127.0.0.1") -> Config:
    return Config(mqtt=Mqtt(username=username, password=password), broker=Broker(bind=bind))


def test_the_limits_are_those_that_were_measured() -> None:
    rendered = options(configuration(Config(), FOLDER, "floe"))
    assert rendered["max_packet_size"] == ["2000000"]
    assert rendered["max_queued_messages"] == ["1000000"]
    assert rendered["set_tcp_nodelay"] == ["true"]
    assert rendered["sys_interval"] == ["5"]
    assert rendered["connection_messages"] == ["true"]
    assert "message_size_limit" not in rendered


def test_it_listens_on_the_configured_address_and_port_only() -> None:
    config = Config(mqtt=Mqtt(port=18830), broker=Broker(bind="::1"))
    assert options(configuration(config, FOLDER, "floe"))["listener"] == ["18830 ::1"]


def test_without_a_login_anonymous_clients_are_let_in_from_this_machine() -> None:
    rendered = options(configuration(Config(), FOLDER, "floe"))
    assert rendered["allow_anonymous"] == ["true"]
    assert "password_file" not in rendered


def test_with_a_login_nobody_is_anonymous_and_the_password_is_not_in_the_text() -> None:
    config = with_login(bind="0.0.0.0")
    rendered = options(configuration(config, FOLDER, "floe"))
    assert rendered["allow_anonymous"] == ["false"]
    assert rendered["password_file"] == ["/run/floe/passwords"]
    rendered_files = files(config, None)
    assert "a secret" not in configuration(config, FOLDER, "floe") + "".join(rendered_files.values())
    assert rendered_files[PASSWORDS].startswith("fleet:$7$101$")


def test_only_the_two_branches_of_the_federation_are_open() -> None:
    rendered = options(access(Config(federation=Federation(name="north"))))
    assert rendered == {
        "topic": [
            "readwrite floe/north/device/#",
            "readwrite floe/north/lineage/#",
            "readwrite floe/north/operator/#",
            "read $SYS/#",
        ],
    }


def test_with_a_login_the_topics_belong_to_it_and_not_to_anonymous_clients() -> None:
    lines = [line for line in access(with_login()).splitlines() if not line.startswith("#")]
    assert lines[0] == "user fleet"


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.168.1.7", "broker.local"])
def test_an_anonymous_listener_that_others_reach_is_refused_with_the_way_out(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"set mqtt\.username and FLOE_MQTT_PASSWORD, or bind to 127\.0\.0\.1"):
        configuration(Config(broker=Broker(bind=bind)), FOLDER, "floe")


@pytest.mark.parametrize(
    ("mqtt", "message"),
    [
        (Mqtt(username="fleet"), "mqtt.username is set and mqtt.password is not"),
        (Mqtt(password="x"), "mqtt.password is set and mqtt.username is not"),
        (Mqtt(username="a:b", password="x"), "mqtt.username = 'a:b'"),
        (Mqtt(username="a\ntopic #", password="x"), "mqtt.username"),
        (Mqtt(username="fleet", password="x\n"), "mqtt.password: control characters"),
    ],
)
def test_a_login_that_mosquitto_could_not_hold_is_refused(mqtt: Mqtt, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(Config(mqtt=mqtt))
    assert message in str(caught.value)


def test_an_address_cannot_smuggle_in_another_option() -> None:
    with pytest.raises(ConfigError, match=r"broker\.bind"):
        check(Config(broker=Broker(bind="127.0.0.1\nallow_anonymous true")))


@pytest.mark.parametrize("name", ["a\nallow_anonymous true", "tab\t", "\x1b[2J", "\udcff", "\x85", "\ufdd0"])
def test_a_folder_that_mosquitto_could_not_read_back_is_named_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\[paths\] state: .* in /run/floe/.*choose another folder") as caught:
        configuration(Config(), FOLDER / name, "floe")
    assert str(caught.value).isprintable()
    assert "listener" not in str(caught.value)


@pytest.mark.parametrize("name", ["two words", " ", "'quoted\"", "#1", "ümlaut\u3000"])
def test_a_folder_may_be_called_what_mosquitto_takes_as_it_is(name: str) -> None:
    assert options(configuration(Config(), FOLDER / name, "floe"))["acl_file"] == [f"/run/floe/{name}/acl"]


@pytest.mark.parametrize(
    ("bind", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("::", False)],
)
def test_loopback_is_what_only_this_machine_reaches(bind: str, expected: bool) -> None:
    assert is_loopback(bind) is expected


@given(
    port=st.integers(1, 65535),
    megabytes=st.integers(1, 256),
    name=st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True),
)
def test_every_allowed_value_reads_back_from_the_text(port: int, megabytes: int, name: str) -> None:
    config = msgspec.structs.replace(
        Config(),
        mqtt=Mqtt(port=port),
        broker=Broker(max_payload_mb=megabytes),
        federation=Federation(name=name),
    )
    rendered = options(configuration(config, FOLDER, "floe"))
    assert rendered["listener"] == [f"{port} 127.0.0.1"]
    assert rendered["max_packet_size"] == [str(megabytes * 1_000_000)]
    assert options(access(config))["topic"][0] == f"readwrite floe/{name}/device/#"


TLS = ServerFiles(Path("/keys/ca.pem"), Path("/keys/server.pem"), Path("/keys/server.key"))


def enrolled(login: Any = "certificates", bind: str = "0.0.0.0", **mqtt: Any) -> Config:
    return Config(mqtt=Mqtt(**{"tls": True, "login": login} | mqtt), broker=Broker(bind=bind))


def test_with_certificates_nobody_gets_in_without_one_and_its_name_is_the_login() -> None:
    rendered = options(configuration(enrolled(), FOLDER, "floe", TLS))
    assert rendered["listener"] == ["1883 0.0.0.0"]
    assert (rendered["cafile"], rendered["certfile"], rendered["keyfile"]) == (
        ["/keys/ca.pem"],
        ["/keys/server.pem"],
        ["/keys/server.key"],
    )
    assert rendered["require_certificate"] == rendered["use_identity_as_username"] == ["true"]
    assert rendered["tls_version"] == ["tlsv1.2"]
    assert rendered["allow_anonymous"] == ["false"]


def test_with_passwords_no_certificate_is_asked_for() -> None:
    rendered = options(configuration(enrolled("passwords"), FOLDER, "floe", TLS))
    assert "require_certificate" not in rendered
    assert rendered["allow_anonymous"] == ["false"]
    assert rendered["password_file"] == ["/run/floe/passwords"]


@pytest.mark.parametrize("login", ["certificates", "passwords"])
def test_the_lobby_is_a_second_listener_that_asks_for_no_certificate(login: str) -> None:
    text = configuration(enrolled(login, lobby_port=1884), FOLDER, "floe", TLS)
    members, _, lobby = text.partition("listener 1884 0.0.0.0")
    assert options(members)["listener"] == ["1883 0.0.0.0"]
    rendered = options(lobby)
    assert rendered["certfile"] == ["/keys/server.pem"]
    assert "require_certificate" not in rendered
    assert rendered["max_connections"] == ["200"]
    assert rendered["allow_anonymous"] == ["true"]
    assert rendered["password_file"] == ["/run/floe/passwords"], "a user name without its password is no one's"
    assert "per_listener_settings" not in options(text)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (enrolled(tls=False), "login = 'certificates': needs TLS"),
        (enrolled("passwords", tls=False), "needs TLS"),
        (enrolled("passwords", bind="127.0.0.1", tls=False, lobby_port=1884), "needs TLS"),
        (enrolled(lobby_port=1883), "mqtt.lobby_port = 1883: is mqtt.port already"),
        (Config(mqtt=Mqtt(lobby_port=1884)), "mqtt.lobby_port: a lobby belongs to"),
    ],
)
def test_what_would_leave_a_door_open_is_refused(config: Config, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert message in str(caught.value)


def test_passwords_in_clear_stay_on_this_machine() -> None:
    check(enrolled("passwords", bind="127.0.0.1", tls=False))


def test_tls_without_a_certificate_names_who_makes_one() -> None:
    with pytest.raises(ConfigError, match="`floe federation new`"):
        configuration(enrolled(), FOLDER, "floe")


def test_a_path_of_a_key_cannot_smuggle_in_another_option() -> None:
    tls = ServerFiles(TLS.authority, TLS.certificate, Path("/keys/a\nallow_anonymous true"))
    with pytest.raises(ConfigError, match="choose another folder"):
        configuration(enrolled(), FOLDER, "floe", tls)


def test_members_of_another_federation_or_none_are_refused() -> None:
    for members in (None, Members("north")):
        with pytest.raises(ConfigError, match="needs the members of 'floe'"):
            files(enrolled(), members)
