"""The broker follows the roster over itself: who is approved gets in, who is revoked has no rights, without a restart.

It believes no message: the roster is verified from the root's key (`known`). It logs in as `broker`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from broker.known import Known
from broker.members import Members
from broker.render import ServerFiles
from broker.run import Mosquitto
from floe.anchor import read_anchor
from floe.certificates import AUTHORITY
from floe.errors import BrokerError, FloeError, KeyFileError, Refused, StoreError
from floe.papers import BROKER, SERVER, Papers, hashes, logins_here, renew_server, server_names
from floe.roster import Roster
from floe.service import log
from floe.session import Connected, Disconnected, Received, Session
from floe.settings import Config
from floe.topics import CurrentRoster, EntryTo, filter_of, parse

ROSTER = "roster.json"
POLL_S, AGAIN_S, RENEW_S = 0.2, 10.0, 3600.0
SETTLE_S = 0.2  # between two looks at what has come: comparing the trees of many cards takes its time
PATIENCE_S = 5.0  # for the cards of a head that has come


class Access:
    """What the broker needs of certificates, passwords and the roster: renewed, and followed while it runs.

    Raises `KeyFileError` for what is missing here, `ConfigError`, `StoreError`.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._keys = config.path(config.security.access)
        self._lineage = config.rounds.lineage
        self._renew_at = 0.0
        self._authority: int | None = None
        self._stale = False
        self._applied: Members | None = None
        self._known: Known | None = None
        self._session: Session | None = None
        self._again_at = 0.0
        self._told, self._tell_at = "", 0.0
        self._settle_at = 0.0
        self._members: Members | None = None
        self._source: tuple[Roster | None, dict[str, str]] = (None, {})
        self.renew()
        if config.mqtt.login != "shared":
            path = config.path(config.security.federation)
            anchor = read_anchor(path)
            if anchor is None:
                raise KeyFileError(
                    f"{path}: missing, and [mqtt] login = {config.mqtt.login!r} is for devices that are enrolled: "
                    "bring it (it is public), or begin with `floe federation new`"
                )
            if anchor.federation != config.federation.name:
                raise KeyFileError(f"{path}: of {anchor.federation!r}, [federation] name is {config.federation.name!r}")
            self._known = Known(folder / ROSTER, anchor)
            self._applied = self.members()

    @property
    def files(self) -> ServerFiles | None:
        """The broker's certificate, where it speaks TLS."""
        if not self._config.mqtt.tls:
            return None
        papers = Papers(self._keys, SERVER)
        return ServerFiles(papers.authority, papers.certificate, papers.key)

    def members(self) -> Members | None:
        """Who may log in now; None where all share a login."""
        if self._known is None:
            return None
        passwords = self._config.mqtt.login == "passwords"
        own = hashes(self._keys) if passwords else dict.fromkeys(logins_here(self._keys), "")
        source = (self._known.roster, own)
        if self._members is None or source != self._source:
            self._members = self._known.members(self._lineage, own, passwords=passwords)
            self._source = source
        return self._members

    def renew(self, *, again: bool = False) -> bool:
        """Look after our certificates, once an hour or `again`; whether there is a new one."""
        if time.monotonic() < self._renew_at and not again:
            return False
        told = list[str]()
        self._renew_at, self._authority = time.monotonic() + RENEW_S, _changed_at(self._keys / AUTHORITY)
        mqtt, bind = self._config.mqtt, self._config.broker.bind
        if mqtt.tls:
            told.append(renew_server(self._keys, server_names(mqtt.host, bind), time.time()))
        if mqtt.login == "certificates":
            told.append(Papers(self._keys, BROKER).renew(time.time()))
        for text in filter(None, told):
            log(text)
        return any(told)

    @property
    def has_other_authority(self) -> bool:
        """Whether the authority has been replaced: Mosquitto 2.0 reads that at its start only."""
        return self._config.mqtt.tls and _changed_at(self._keys / AUTHORITY) != self._authority

    def follow(self, running: Mosquitto, stopped: Callable[[], bool]) -> None:
        """Wait a moment for what comes, and have the broker do as it says."""
        if self._known is None:
            time.sleep(POLL_S)
        elif self._session is None:
            self._connect(running, stopped)
        else:
            self._listen(self._session, self._known)
        try:
            self._apply(running)
        except (StoreError, KeyFileError) as error:
            log(f"error: {error}; trying again")
            time.sleep(AGAIN_S / 10)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _apply(self, running: Mosquitto) -> None:
        if self._known is not None and time.monotonic() >= self._settle_at:
            self._settle_at = time.monotonic() + SETTLE_S
            if self._known.settle() and self._known.roster is not None:
                log(f"roster: version {self._known.roster.version}, {self._known.roster.head.count} cards")
        self._stale = self.renew() or self._stale
        members = self.members()
        if self._stale or members is not self._applied:
            running.reload(members)
            self._stale, self._applied = False, members
            if members is not None:
                log(f"rights: {_count(members)}")

    def _connect(self, running: Mosquitto, stopped: Callable[[], bool]) -> None:
        if time.monotonic() < self._again_at:
            time.sleep(POLL_S)
            return
        mqtt = msgspec.structs.replace(self._config.mqtt, host=running.host, port=running.port, connect_timeout_s=5.0)
        federation = self._config.federation.name
        filters = [filter_of(CurrentRoster, federation=federation), filter_of(EntryTo, federation=federation)]
        try:
            access = Papers(self._keys, BROKER).access(mqtt)
            self._session = Session(mqtt, f"floe-broker-{os.urandom(4).hex()}", filters, None, access)
            self._session.connect(stopped, log)
        except (BrokerError, KeyFileError) as error:
            self._give_up(error)

    def _listen(self, session: Session, known: Known) -> None:
        try:
            event = session.next(POLL_S)
        except BrokerError as error:
            self._give_up(error)
            return
        match event:
            case Received() as received:
                session.ack(received)
                self._receive(received, known)
            case Connected():
                self._tell_at = time.monotonic() + PATIENCE_S
            case Disconnected(reason):
                log(f"following the roster: connection lost: {reason}; trying again")
            case _:
                pass
        self._tell_missing(known)

    def _receive(self, received: Received, known: Known) -> None:
        self._tell_at = time.monotonic() + PATIENCE_S
        try:
            topic = parse(received.topic)
            if isinstance(topic, CurrentRoster):
                known.on_head(received.payload.decode(errors="replace"))
            elif isinstance(topic, EntryTo):
                known.on_entry(received.payload, topic.lineage)
        except Refused as refusal:
            log(f"refused {received.topic}: {refusal}")

    def _tell_missing(self, known: Known) -> None:
        if time.monotonic() >= self._tell_at and (text := known.missing()) != self._told:
            self._told = text
            if text:
                log(f"warning: {text}")

    def _give_up(self, error: FloeError) -> None:
        log(f"error: the roster is not followed, so nobody new gets in: {error}; trying again in {AGAIN_S:g} s")
        self.close()
        self._again_at = time.monotonic() + AGAIN_S


def _changed_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _count(members: Members) -> str:
    counted = (
        (len(members.devices), "device"),
        (len(members.lineages), "aggregator"),
        (len(members.operators), "operator"),
    )
    return ", ".join(f"{count} {what}(s)" for count, what in counted)
