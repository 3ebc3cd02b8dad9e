"""What an aggregator publishes of the roster: its head, and to each device its card with the group key sealed to it.

One file: the group key, 0600. It is made anew when the head says that the group is another.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from aggregator.certify import Certifier
from aggregator.members import Members
from floe.documents import Card, Entry
from floe.errors import KeyFileError, Refused
from floe.hpke import seal_to
from floe.identity import present, read_private, write_private
from floe.keyring import Ring
from floe.roster import group_info, read_card
from floe.seal import KEY_BYTES
from floe.signing import from_text, to_text
from floe.topics import CurrentRoster, EntryTo
from floe.wire import Wire


class Entries:
    """Publishes over `wire`. `ring` is told the group key. Raises `KeyFileError`, `StoreError`."""

    def __init__(
        self, wire: Wire, members: Members, ring: Ring, lineage: str, folder: Path, certifier: Certifier
    ) -> None:
        self._wire = wire
        self._members = members
        self._ring = ring
        self._lineage = lineage
        self._folder = folder
        self._certifier = certifier
        self._told: set[str] = set()
        self.renew()

    def renew(self) -> bool:
        """Have the group key that the head asks for; whether it is a new one."""
        group = self._members.roster.head.group
        if self._ring.group == group:
            return False
        path = self._folder / f"group-{group}.key"
        if not present(path):
            write_private(path, to_text(os.urandom(KEY_BYTES)).encode())
        self._ring.group_key, self._ring.group = _read(path), group
        for old in self._folder.glob("group-*.key"):
            if _group_of(old) < group:  # a higher one is of a head that a restored log does not know yet
                old.unlink()
        return True

    def publish_head(self) -> None:
        topic = CurrentRoster(self._wire.federation, self._lineage)
        self._wire.send_bytes(topic, self._members.roster.text.encode(), retain=True)

    def publish(self, device: str) -> None:
        """A device's entry, if the roster has it."""
        if text := self._members.card(device):
            self._told.add(device)
            card = read_card(text, self._members.anchor)
            group_key = self._seal(card) if card.state == "approved" else ""
            self._wire.send(
                EntryTo(self._wire.federation, self._lineage, device), Entry, retain=True, to=device, card=text,
                group=self._ring.group, group_key=group_key, certificate=self._certifier.of(card),
                rotate=self._members.rotates(device),
            )  # fmt: skip

    def has_told(self, device: str) -> bool:
        """Whether this process has published a device's entry, so that a broker that was there has it."""
        return device in self._told

    def publish_all(self, but: str = "") -> None:
        """Every approved device's: the group key is another. `but`: who has been told."""
        for device in self._members.approved():
            if device != but:
                self.publish(device)

    def publish_everybody(self) -> None:
        """Every entry, those of revoked devices too, which the head counts."""
        for device in self._members.all():
            self.publish(device)

    def renew_certificates(self) -> int:
        """The entries of those whose certificate is to be renewed; how many."""
        self._certifier.refresh()
        due = self._certifier.due()
        for device in due:
            self.publish(device)
        return len(due)

    def changed(self, card: Card | None) -> bool:
        """A new head, and maybe a card: what must be told; whether the group key is another."""
        self.publish_head()
        renewed = self.renew()
        if card is not None:  # first of all: the broker waits for it to do as the head says
            self.publish(card.member)
        if renewed:
            self.publish_all(but=card.member if card else "")
        return renewed

    def _seal(self, card: Card) -> str:
        info = group_info(self._wire.federation, self._lineage, card.member, self._ring.group)
        try:
            return to_text(seal_to(card.keys.sealing, self._ring.group_key, info))
        except Refused:  # an operator has approved a key that is none: the device cannot read, and nobody else suffers
            return ""


def _group_of(path: Path) -> int:
    number = path.stem.removeprefix("group-")
    return int(number) if number.isdecimal() else 0


def _read(path: Path) -> bytes:
    with suppress(ValueError, Refused):
        if len(key := from_text(read_private(path).decode())) == KEY_BYTES:
            return key
    raise KeyFileError(f"{path}: not a group key; remove it: a new one is made, and sent to every device")
