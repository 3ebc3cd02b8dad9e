"""Config -> mosquitto.conf, ACL and password file as text. Touches no file, no socket, no process.

Every limit was measured on Mosquitto 2.0.11 (Debian 12); the reasons stand in the rendered file, because that is
what a person who looks for the cause of a lost message will read.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from broker.members import Members, acl, passwords
from floe.errors import ConfigError
from floe.logins import hash_of
from floe.settings import Config
from floe.terminal import printable

CONFIGURATION = "mosquitto.conf"
ACL = "acl"
PASSWORDS = "passwords"

_BYTES_PER_MB = 1_000_000
_STRANGERS = 200  # connections of the lobby: more must not take what the members need
_LOGIN = re.compile(r"[^\s:#+]{1,64}")


@dataclass(frozen=True)
class ServerFiles:
    """What a broker with TLS needs, in PEM: the authority of its clients, its own certificate, its private key."""

    authority: Path
    certificate: Path
    key: Path


def configuration(config: Config, folder: Path, user: str, tls: ServerFiles | None = None) -> str:
    """The text of mosquitto.conf for a broker whose files are in `folder` (absolute), started by the account `user`.

    `tls`: absolute paths; needed where [mqtt] tls is set. Raises `ConfigError` where a broker would be open to
    strangers, or a value would not survive Mosquitto's format.
    """
    check(config)
    _check_folder(folder)
    return f"""\
# Rendered by `floe broker` from floe.toml at every start: change it there.

{_listeners(config, tls)}
{_login(config, folder)}
acl_file {folder / ACL}
# Only heeded when root starts it: this folder is open to the account that made it and to no other.
user {user}

# Larger packets are refused when they are announced, before they take memory. The same on every bridged broker:
# one packet that a neighbour refuses blocks the bridge for ever. (message_size_limit would tell an MQTT 3.1.1
# publisher "success" and drop the message.)
max_packet_size {config.broker.max_payload_mb * _BYTES_PER_MB}

# Chunks in flight are copied for each client: 20 of 64 KiB are 1.3 MB a device.
max_inflight_messages 20
# Never 0: then a denied PUBLISH disconnects the client. The default, 1000, drops the newest message in silence.
# An entry takes 100 bytes, its payload is kept once.
max_queued_messages 1000000
# Without it small packets wait for each other: 43 ms instead of 0.3 ms over a bridge, 12 instead of 400 MB/s with TLS.
set_tcp_nodelay true

# Retained messages and the sessions of absent devices survive a stop. Each save rewrites the whole file, which wears
# an SD card, so once a minute: what a power cut loses, manifests that are repeated until answered make good.
persistence true
persistence_location {folder}/
autosave_interval 60
# A device that is gone for good must not collect messages for ever; what it learned waits in its own outbox.
persistent_client_expiration 30d

log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
log_timestamp_format %Y-%m-%dT%H:%M:%S
connection_messages true
# $SYS/broker/publish/messages/dropped tells what was lost here: seconds between two reports.
sys_interval 5
"""


def files(config: Config, members: Members | None) -> dict[str, str]:
    """ACL and, where there are logins, password file: names -> texts. What a reload replaces.

    Raises `ConfigError`; members are needed for every [mqtt] login but "shared".
    """
    check(config)
    if config.mqtt.login == "shared":
        return _shared(config)
    if members is None or members.federation != config.federation.name:
        raise ConfigError(f"[mqtt] login = {config.mqtt.login!r}: needs the members of {config.federation.name!r}")
    return {ACL: acl(members), PASSWORDS: passwords(members)}


def _shared(config: Config) -> dict[str, str]:
    """Floe's three branches of this federation, and the broker's own statistics to read.

    All share one login (or none), so the broker cannot tell a device from another; signatures do.
    """
    branch = f"floe/{config.federation.name}"
    username = config.mqtt.username
    user = f"user {username}\n" if username else ""
    rights = f"""\
# Rendered by `floe broker`. One login for all: who may say what is settled by signatures, not here.
{user}topic readwrite {branch}/device/#
topic readwrite {branch}/lineage/#
topic readwrite {branch}/operator/#
topic read $SYS/#
"""
    return {ACL: rights} | ({PASSWORDS: f"{username}:{hash_of(config.mqtt.password)}\n"} if username else {})


def check(config: Config) -> None:
    """Raise `ConfigError` for a broker that must not or cannot be started as configured."""
    _check_bind(config.broker.bind)
    if config.mqtt.login != "shared":
        _check_members_only(config)
        return
    if config.mqtt.lobby_port:
        raise ConfigError('mqtt.lobby_port: a lobby belongs to [mqtt] login = "certificates" or "passwords"')
    username, password = config.mqtt.username, config.mqtt.password
    if not username and not is_loopback(config.broker.bind):
        raise ConfigError(
            f"broker.bind = {config.broker.bind!r}: every machine that reaches this address could connect without a"
            " login; set mqtt.username and FLOE_MQTT_PASSWORD, or bind to 127.0.0.1"
        )
    if bool(username) != bool(password):
        given, other = ("username", "password") if username else ("password", "username")
        raise ConfigError(f"mqtt.{given} is set and mqtt.{other} is not: set both, or neither for no login")
    if username and _LOGIN.fullmatch(username) is None:
        raise ConfigError(f"mqtt.username = {username!r}: allowed are 1 to 64 characters without spaces, ':', '#', '+'")
    if any(ord(character) < 32 for character in password):
        raise ConfigError("mqtt.password: control characters (a line break at the end?) are not allowed")


def is_loopback(bind: str) -> bool:
    """Whether only this machine can reach the address. Names other than localhost count as reachable."""
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def _check_bind(bind: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9._:%-]+", bind) is None:
        raise ConfigError(f"broker.bind = {bind!r}: allowed is an IP address or a host name")


def _check_folder(folder: Path) -> None:
    # Mosquitto takes the rest of a line as the path, spaces and quotes included, and refuses what is not clean UTF-8:
    # control characters, surrogates (bytes of a name that are not UTF-8), noncharacters.
    if any(unicodedata.category(character) in ("Cc", "Cs", "Cn") for character in str(folder)):
        raise ConfigError(
            f"[paths] state: the broker's files would be in {printable(str(folder))}, a name with line breaks, control "
            "characters or bytes that are not UTF-8, which Mosquitto's configuration cannot hold: choose another folder"
        )


def _check_members_only(config: Config) -> None:
    login, mqtt = config.mqtt.login, config.mqtt
    if not mqtt.tls and (login == "certificates" or mqtt.lobby_port or not is_loopback(config.broker.bind)):
        raise ConfigError(
            f"[mqtt] login = {login!r}: needs TLS, set [mqtt] tls = true (passwords without it only on 127.0.0.1)"
        )
    if mqtt.lobby_port == mqtt.port:
        raise ConfigError(f"mqtt.lobby_port = {mqtt.lobby_port}: is mqtt.port already; choose another")


def _listeners(config: Config, tls: ServerFiles | None) -> str:
    mqtt, bind = config.mqtt, config.broker.bind
    if not mqtt.tls:
        return f"listener {mqtt.port} {bind}"
    if tls is None:
        raise ConfigError("[mqtt] tls = true: the broker has no certificate; `floe federation new` makes one")
    for path in (tls.authority, tls.certificate, tls.key):
        _check_folder(path)
    secured = f"cafile {tls.authority}\ncertfile {tls.certificate}\nkeyfile {tls.key}\ntls_version tlsv1.2"
    members = f"listener {mqtt.port} {bind}\n{secured}"
    if config.mqtt.login == "certificates":
        members += "\nrequire_certificate true\nuse_identity_as_username true"
    if not mqtt.lobby_port:
        return members
    return f"""\
{members}

# The lobby, for those who have no login yet, or none any more: the ACL lets them ask to join, and read the roster.
listener {mqtt.lobby_port} {bind}
{secured}
max_connections {_STRANGERS}
"""


def _login(config: Config, folder: Path) -> str:
    if config.mqtt.login != "shared":
        # Not per_listener_settings: Mosquitto mixes up its listeners' logins when it is told to read them again.
        anonymous = "true" if config.mqtt.lobby_port else "false"
        return (
            "# A client without a login has the lobby's rights, and no others. A user name needs its password or its\n"
            f"# certificate at every listener.\nallow_anonymous {anonymous}\npassword_file {folder / PASSWORDS}"
        )
    if config.mqtt.username:
        return f"allow_anonymous false\npassword_file {folder / PASSWORDS}"
    return "# Reachable from this machine alone, hence without a login.\nallow_anonymous true"
