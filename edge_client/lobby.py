"""The way back in: when the broker does not let a device in, it looks in the lobby for what has changed.

Nothing there is believed but what the roster proves, so TLS is not verified and no login is needed. Head and entry lie
there retained: with another authority, a renewed certificate, or the word that this device is revoked.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from edge_client.asked import kept_asked
from edge_client.enrolled import LISTENS_TO, Enrolled
from edge_client.entrance import LOST, is_on_card
from floe.errors import AccessError, BrokerError, KeyFileError, Refused
from floe.identity import Identity
from floe.keyring import Keyring
from floe.papers import lobby
from floe.sequence import Sequence
from floe.service import Stop, log
from floe.session import Connected, Received
from floe.settings import Config
from floe.topics import filter_of, parse
from floe.wire import Wire

FIRST_S, PATIENT_S, LONGEST_S, WELL_S = 1.0, 4.0, 600.0, 60.0
CONNECT_S, STAY_S = 5.0, 10.0  # the lobby has few places
_FAULTS = ("server", "certificate", "login")


class Lobby:
    """Where one device waits, with growing pauses, until the members' port lets it in again."""

    def __init__(self, config: Config, enrolled: Enrolled, identity: Identity, state: Path) -> None:
        self._mqtt, self._access = lobby(config.mqtt)
        self._members = config.mqtt
        self._federation = config.federation.name
        self._enrolled = enrolled
        self._identity = identity
        self._state = state
        self._place = f"the lobby, {self._mqtt.host}:{self._mqtt.port}"
        me = {"federation": self._federation, "lineage": config.rounds.lineage, "device": identity.name}
        self._filters = [filter_of(kind, **me) for kind in LISTENS_TO]
        self._pause_s = FIRST_S
        self._said = ""

    def wait(self, error: AccessError, since: float, stop: Stop) -> None:
        """Look for news until there are some, or it is time to try the members' port again.

        `since`: when that was tried (monotonic). Raises the error where no lobby helps, `KeyFileError` if the device
        has been revoked, or what it logs in with is not on its card, `StoreError`.
        """
        if self._access is None or error.fault not in _FAULTS:
            raise error
        if time.monotonic() - since > WELL_S:
            self._pause_s, self._said = FIRST_S, ""
        if str(error) != self._said or self._pause_s == LONGEST_S:
            pauses = f"trying again with pauses of up to {LONGEST_S:g} s"
            log(f"warning: {error}; looking for news in {self._place}, {pauses}")
        self._said, self._enrolled.new_papers = str(error), False
        until = time.monotonic() + self._pause_s
        self._look(min(until, time.monotonic() + STAY_S), stop)
        if self._pause_s >= PATIENT_S and self._has_lost() and not (self._has_news() or kept_asked(self._state)):
            raise KeyFileError(LOST.format(self._enrolled.papers.folder, self._identity.name))
        while time.monotonic() < until and not (stop() or self._has_news()):
            time.sleep(0.1)
        if self._has_news():
            log(f"news in {self._place}: another authority, certificate or keys")
            self._pause_s = FIRST_S
        else:
            self._pause_s = min(2 * self._pause_s, LONGEST_S)

    def _look(self, until: float, stop: Stop) -> None:
        mqtt = msgspec.structs.replace(self._mqtt, connect_timeout_s=CONNECT_S)
        keyring, sequence = Keyring("plaintext", None), Sequence(self._state / "sequence")
        wire = Wire(mqtt, self._federation, self._identity, keyring, sequence, None, self._filters, self._access)
        try:
            wire.session.connect(stop, lambda text: None)
            while time.monotonic() < until and not (stop() or self._has_news()):
                match wire.session.next(0.25):
                    case Connected():
                        self._enrolled.connected()
                    case Received() as received:
                        wire.session.ack(received)
                        self._receive(wire, received)
                if wire.session.connected and not self._has_lost():
                    self._enrolled.go_on(wire)
        except BrokerError as fault:
            log(f"warning: {self._place}: {fault}")
        finally:
            wire.close()

    def _has_lost(self) -> bool:
        """Whether our card has another key to log in with; that is left to `floe join`, but for an order to rotate."""
        enrolled, entry = self._enrolled, self._enrolled.membership.entry
        if not enrolled.is_approved or (entry is not None and entry.rotate):
            return False
        return not is_on_card(enrolled.papers, enrolled.membership, self._members)

    def _has_news(self) -> bool:
        return self._enrolled.new_papers or self._enrolled.changed_keys

    def _receive(self, wire: Wire, received: Received) -> None:
        try:
            self._enrolled.receive(wire, parse(received.topic), received)
        except Refused as refusal:
            log(f"warning: refused {received.topic}: {refusal}")
