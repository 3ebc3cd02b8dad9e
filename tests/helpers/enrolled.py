"""A broker with TLS, its authority, and the certificates and passwords of its clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from broker import run
from broker.members import Member, Members
from broker.render import ServerFiles
from floe.access import Access, Tls
from floe.certificates import client_certificate, load_authority, new_authority, server_certificate, spki, tls_key
from floe.logins import hash_of
from floe.session import Connected, Event, Published, Session
from floe.settings import Config, Mqtt
from helpers.broker import free

WAIT_S = 20.0
DAY = 86_400.0
Login = Literal["certificates", "passwords"]


@dataclass(frozen=True)
class Enrolled:
    """Keys and certificates in `folder`, and a broker on `port` with its lobby on `lobby`."""

    folder: Path
    login: Login
    port: int = field(default_factory=free)
    lobby: int = field(default_factory=free)

    def __post_init__(self) -> None:
        new_authority(self.folder, "floe", time.time())

    def certify(self, names: Sequence[str] = ("127.0.0.1",), age_s: float = 0.0) -> ServerFiles:
        """The broker's certificate, made now or some seconds ago."""
        key = tls_key(self.folder / "server.key")
        authority = load_authority(self.folder)
        pem = server_certificate(authority, key.public_key(), names, time.time() - age_s)
        (self.folder / "server.pem").write_text(pem)
        return ServerFiles(self.folder / "ca.pem", self.folder / "server.pem", self.folder / "server.key")

    def broker(self, members: Members, tls: ServerFiles | None = None) -> AbstractContextManager[run.Mosquitto]:
        mqtt = Mqtt(port=self.port, tls=True, lobby_port=self.lobby, login=self.login)
        config = Config(mqtt=mqtt, folder=self.folder)
        return run.start(config, self.folder / "broker", members=members, tls=tls or self.certify())

    def member(self, name: str) -> Member:
        return Member(name, hash_of(self.password(name)) if self.login == "passwords" else "")

    def password(self, name: str) -> str:
        return f"the password of {name}"

    def access(self, login: str, age_s: float = 0.0) -> Access:
        """Of a login such as `device.ann`; its certificate was made so many seconds ago."""
        authority = self.folder / "ca.pem"
        if self.login == "passwords":
            return Access(login, self.password(login.split(".")[1]), Tls(authority))
        certificate, key = self.folder / f"{login}.pem", self.folder / f"{login}.key"
        public = spki(tls_key(key))
        certificate.write_text(client_certificate(load_authority(self.folder), login, public, time.time() - age_s))
        return Access(tls=Tls(authority, certificate=certificate, key=key))

    def members(self, *devices: str) -> Members:
        """These devices, the lineage `main` and the operator `olga`."""
        found = tuple(self.member(name) for name in devices)
        return Members("floe", found, (self.member("main"),), (self.member("olga"),))

    @contextmanager
    def session(self, login: str, filters: Sequence[str] = ()) -> Iterator[Session]:
        """A connected session of a login."""
        with session(self.port, self.access(login), filters, login.replace(".", "-")) as found:
            yield found


@contextmanager
def session(port: int, access: Access | None, filters: Sequence[str] = (), name: str = "test") -> Iterator[Session]:
    """A connected session, whose subscriptions the broker has."""
    found = Session(Mqtt(port=port, connect_timeout_s=WAIT_S), name, filters, None, access)
    try:
        found.connect(lambda: False, lambda text: None)
        until(found, lambda event: isinstance(event, Connected))
        found.publish("nowhere", b"")  # refused, and answered after what we subscribed to
        until(found, lambda event: isinstance(event, Published))
        yield found
    finally:
        found.close()


def until(found: Session, condition: Callable[[Event], bool]) -> list[Event]:
    """The events up to the first that is as wanted."""
    events: list[Event] = []
    end = time.monotonic() + WAIT_S
    while not (events and condition(events[-1])):
        assert time.monotonic() < end, events
        if (event := found.next(0.2)) is not None:
            events.append(event)
    return events
