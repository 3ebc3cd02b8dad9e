"""Which key speaks for a device, without enrolment: the first that was seen under its name, with proof that it belongs
here.
"""

from __future__ import annotations

from typing import Protocol

from aggregator.log import Log
from floe.errors import Refused
from floe.keyring import Keyring
from floe.messages import Message


class Speakers(Protocol):
    """Who may speak for a device: `Pins`, or with enrolment `members.Members`."""

    def check_key(self, message: Message) -> None:
        """Raises `Refused` where the key of a message does not speak for its sender."""


class Pins:
    """The keys of devices, in the log."""

    def __init__(self, log: Log, keyring: Keyring) -> None:
        self._log = log
        self._keyring = keyring

    def check_key(self, message: Message) -> None:
        """Pin the key of a device's first message; raises `Refused("unknown-key", ...)` for another, or no proof."""
        pinned = self._log.key_of(message.sender)
        if pinned is None:
            if not self._keyring.proves(message):
                raise Refused("unknown-key", f"{message.sender!r} does not prove that it knows our secret.key")
            self._log.pin(message.sender, message.key)
        elif pinned != message.key:
            raise Refused("unknown-key", f"another key was seen first under the name {message.sender!r}")
