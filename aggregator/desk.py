"""Where devices are let in and put out: requests, operators' roster commands, and what is published of the roster.

An approval's way: a device's `JoinRequest` is recorded (`enrolment`), an operator's command brings the signed card and
head (`members.change`), head and entry are published (`entries`), and the device reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aggregator.certify import Certifier
from aggregator.enrolment import Enrolment
from aggregator.entries import Entries
from aggregator.log import Log
from aggregator.members import Members
from floe.documents import Card, Entry, JoinReply, JoinRequest, RosterCommand, RosterReply
from floe.errors import Refused
from floe.keyring import EnrolledKeyring
from floe.papers import Papers
from floe.session import Received
from floe.settings import Config
from floe.topics import (
    CurrentRoster,
    DeviceJoin,
    EntryTo,
    JoinReplyTo,
    OperatorRoster,
    RosterReplyTo,
    Topic,
    filter_of,
)
from floe.wire import Wire

RENEW_S = 3600.0
# The head first: with a restored log nothing must be said, or be believed of a device, before it has been seen.
HEARS = (CurrentRoster, DeviceJoin, OperatorRoster)


class Desk:
    """The roster's side of one aggregator.

    `changed` is called after a new head, with the card that it brought, and whether models have another group key.
    """

    def __init__(
        self, config: Config, wire: Wire, log: Log, keyring: EnrolledKeyring, members: Members, state: Path,
        changed: Callable[[Card | None, bool], None],
    ) -> None:  # fmt: skip
        self._wire = wire
        self._log = log
        self._members = members
        self._lineage = lineage = wire.identity.name
        self._config = config
        self._renew_at = time.monotonic() + RENEW_S
        self._changed = changed
        self._enrolment = Enrolment(log, members, keyring, wire.identity, state)
        self._entries = Entries(wire, members, keyring.ring, lineage, state / "keys", Certifier(config, log))

        if members.is_behind:  # the state folder knows a newer head than the log
            self._fetch()

    def greet(self) -> None:
        """The head, for a broker that may have lost what was retained; but not over a newer one that it has."""
        if not self._members.is_behind:
            self._entries.publish_head()

    def greet_broker(self) -> None:
        """Connected: a broker that follows the roster lets devices in when it has all their entries."""
        self.greet()
        if not self._members.is_behind and self._config.mqtt.login != "shared":
            self._entries.publish_everybody()

    def tick(self, now: float) -> None:
        """What is to be looked after now and then: certificates, those of devices and our own."""
        if now < self._renew_at or self._config.mqtt.login != "certificates":
            return
        self._renew_at = now + RENEW_S
        own = Papers(self._config.path(self._config.security.access), f"lineage.{self._lineage}")
        if told := own.renew(time.time()):
            self._log.event("info", "certificate", told)
        if count := self._entries.renew_certificates():
            self._log.event("info", "certificate", f"{count} certificate(s) of devices renewed")

    def spoke(self, device: str, *, again: bool) -> None:
        """A device is there: its entry may be lost, or be older than what it should know. Told once by this process, or
        `again`: it has just come, or does not know that it is none, or none with that key, any more.
        """
        if (again or not self._entries.has_told(device)) and not self._members.is_behind:
            self._entries.publish(device)

    def receive(self, topic: Topic, received: Received) -> None:
        """A message of the roster's. Raises `Refused`."""
        match topic:
            case DeviceJoin() if not received.retained:  # which strangers could pile up
                self._on_request(self._wire.read(received, JoinRequest, topic.device))
            case OperatorRoster():
                self._on_command(self._wire.read(received, RosterCommand, topic.operator))
            case CurrentRoster():
                self._on_head(received.payload.decode(errors="replace"))
            case EntryTo():
                self._on_entry(self._wire.read(received, Entry, self._lineage))

    def _on_request(self, request: JoinRequest) -> None:
        self._members.check_complete()  # not answered: it is asked again
        fields = self._enrolment.request(request)
        if fields["state"] == "approved":
            self._entries.publish(request.sender)
        self._wire.send(JoinReplyTo(self._wire.federation, self._lineage, request.sender), JoinReply, **fields)

    def _on_command(self, command: RosterCommand) -> None:
        fields: dict[str, Any] = {"done": True}
        card, roster = None, self._members.roster
        try:
            if command.to != self._lineage:
                raise Refused("not-for-us", f"a command for {command.to!r}")
            self._members.check_sender(command)
            if command.action == "change" and self._members.is_far_below(command.head):
                self._on_head(command.head)  # an operator may know a newer one than a restored log, and than the broker
            answer, card = self._enrolment.command(command)
            fields |= answer
        except Refused as refusal:
            self._log.event("warning", "refused", f"operator {command.sender!r}: {command.action}: {refusal}")
            fields |= {"done": False, "detail": refusal.detail[:500]}
        fields |= {"to": command.sender, "to_key": command.key, "command": command.seq}
        fields |= {"head": self._members.roster.text}
        self._tell(command, card, new=roster is not self._members.roster, done=fields["done"])
        self._wire.send(RosterReplyTo(self._wire.federation, self._lineage, command.sender), RosterReply, **fields)

    def _tell(self, command: RosterCommand, card: Card | None, *, new: bool, done: bool) -> None:
        """Those whom a command concerns."""
        if new:
            what = f"{card.member} is {card.state}" if card else "a new head"
            text = f"version {self._members.roster.version}, by operator {command.sender!r}: {what}"
            self._log.event("info", "roster", text, device=card.member if card else None)
            self._changed(card, self._entries.changed(card))
        elif done and command.action == "rotate" and command.name != self._lineage:
            self._entries.publish(command.name)
        elif done and command.action == "reject" and (fields := self._enrolment.rejection(command.name)):
            self._entries.publish(command.name)
            self._log.event("info", "roster", f"{command.name}: rejected by {command.sender!r}", device=command.name)
            self._wire.send(JoinReplyTo(self._wire.federation, self._lineage, command.name), JoinReply, **fields)

    def _on_head(self, text: str) -> None:
        """What is retained under our name, or known to an operator: so far above ours only after our log was restored
        from an older copy.
        """
        if self._members.see_head(text):
            self._fetch()

    def _fetch(self) -> None:
        told = "the roster in the log is older than the one that we published: the log was restored from a copy"
        self._log.event("error", "restored", f"{told}; fetching what is missing from the broker")
        self._wire.session.listen(filter_of(EntryTo, federation=self._wire.federation, lineage=self._lineage))
        if self._members.try_complete():
            self._complete()

    def _on_entry(self, entry: Entry) -> None:
        """What was published of a card that is missing here: by us, or it would stand in the way of the right one."""
        if not self._members.is_ours(entry.key):
            raise Refused("unknown-key", f"an entry of {entry.to!r} that is not ours")
        if self._members.see_card(entry.card):
            self._complete()

    def _complete(self) -> None:
        version = self._members.roster.version
        way_out = "if models were lost too, an operator lets devices follow again with `floe federation restored`"
        self._log.event("info", "restored", f"the roster is complete again, version {version}; {way_out}")
        self._entries.publish_head()  # where an operator brought it, the broker had lost it
        self._entries.renew()
        self._entries.publish_all()
        self._changed(None, True)
