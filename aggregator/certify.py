"""Client certificates of devices: made for their entries by the authority whose key lies here, and renewed in time.

In the log, so that an entry that is published again brings the same one. A certificate lasts 90 days and is renewed
when 30 are left, whether its device is there or not: its entry waits for it, retained.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from aggregator.log import Log
from floe.certificates import CLIENT_DAYS, Authority, client_certificate
from floe.documents import Card
from floe.errors import Refused
from floe.next_authority import authority_here
from floe.settings import Config
from floe.signing import from_text
from floe.store import durably

DAY_S = 86_400


class Certifier:
    """What an entry's `certificate` is. Raises `KeyFileError`, `sqlite3.Error`."""

    def __init__(self, config: Config, log: Log, clock: Callable[[], float] = time.time) -> None:
        self._folder = config.path(config.security.access)
        self._wanted = config.mqtt.login == "certificates"
        self._log = log
        self._clock = clock
        self._told: set[str] = set()
        self._authority: Authority | None = None
        self._issuer = ""
        self.refresh()

    def refresh(self) -> None:
        """Look again who the authority is: it may have been replaced."""
        self._authority = authority_here(self._folder) if self._wanted else None
        self._issuer = hashlib.sha256(self._authority.pem.encode()).hexdigest() if self._authority else ""
        if self._wanted and self._authority is None:
            self._tell("", f"{self._folder}: no ca.key, so no device gets a certificate, and none is renewed")

    def of(self, card: Card) -> str:
        """A device's certificate in PEM, made if need be; "" where it has none."""
        if not self._wanted or card.state != "approved" or not card.keys.tls:
            return ""
        sql, now = "SELECT pem, issuer, renew_at FROM certificates WHERE device = ? AND tls = ?", self._clock()
        row = self._log.db.execute(sql, [card.member, card.keys.tls]).fetchone()
        pem, issuer, renew_at = row or ("", "", 0)
        if self._authority is None or (issuer == self._issuer and now < renew_at):
            return str(pem)
        try:
            pem = client_certificate(self._authority, f"device.{card.member}", from_text(card.keys.tls), now)
        except Refused as refusal:  # an operator has approved a key that is none, or a name that is too long
            self._tell(card.member, f"{card.member}: no certificate for it: {refusal.detail}")
            return ""
        renew_at = int(now + CLIENT_DAYS * DAY_S * 2 / 3)
        fields = {"device": card.member, "tls": card.keys.tls, "pem": pem, "issuer": self._issuer, "renew_at": renew_at}
        with durably(self._log.db):
            self._log.db.table("certificates").upsert(fields, pk="device")
        return pem

    def due(self) -> list[str]:
        """The approved devices whose certificate is to be renewed, or is of another authority."""
        sql = (
            "SELECT roster.device FROM roster JOIN certificates USING (device) WHERE roster.state = 'approved' "
            "AND (renew_at <= ? OR issuer != ?) ORDER BY roster.device"
        )
        found = self._log.db.execute(sql, [self._clock(), self._issuer]) if self._authority else ()
        return [name for (name,) in found]

    def _tell(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self._log.event("error", "certificate", text, device=about or None)
