"""Signed messages over one session: what every process does the same way when it speaks and when it listens."""

from __future__ import annotations

from collections.abc import Sequence as Filters
from typing import Any

from floe import __version__
from floe.access import Access
from floe.errors import Refused
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import M, Message, Phase, Status
from floe.sequence import Sequence
from floe.session import Received, Session
from floe.settings import Mqtt
from floe.signing import verify
from floe.topics import AggregatorStatus, DeviceStatus, Topic


class Wire:
    """The voice of one identity in one federation: its session, its sequence, its status and last will.

    Without a status topic it leaves neither status nor will: an operator comes and goes.
    """

    def __init__(
        self,
        mqtt: Mqtt,
        federation: str,
        identity: Identity,
        keyring: Keyring,
        sequence: Sequence,
        status_topic: DeviceStatus | AggregatorStatus | None,
        filters: Filters[str],
        access: Access | None = None,
    ) -> None:
        self.federation = federation
        self.identity = identity
        self.sent_bytes = 0
        self.received_bytes = 0
        self._proof = keyring.proof(federation, identity.name, identity.key)
        self._sequence = sequence
        self._status_topic = status_topic
        # A broker cuts a client when another one comes with its identifier: so nobody may be able to guess it.
        client_id = f"floe-{identity.name}-{identity.mark}"
        self.session = Session(mqtt, client_id, filters, self._will if status_topic else None, access)

    def send(self, topic: Topic, kind: type[M], *, retain: bool = False, **fields: Any) -> None:
        """Sign a message of this identity, with the next sequence number, and publish it."""
        self.send_bytes(topic, self.make(kind, **fields)[1], retain=retain)

    def make(self, kind: type[M], by: Identity | None = None, **fields: Any) -> tuple[M, bytes]:
        """A message of this identity, by another key if need be, with the next number, and its signed payload."""
        signer = by or self.identity
        message = self._message(kind, key=signer.key, **fields)
        return message, signer.sign(message)

    def send_bytes(self, topic: Topic, payload: bytes, *, retain: bool = False) -> None:
        self.sent_bytes += len(payload)
        self.session.publish(str(topic), payload, retain=retain)

    def status(self, state: str, phase: Phase | None = None) -> None:
        """Publish how this process is, retained."""
        if self._status_topic is not None:
            self.send(self._status_topic, Status, retain=True, state=state, phase=phase, software=__version__)

    def outrank(self, seq: int) -> bool:
        """Speak above a sequence number of ours that was seen on the wire; whether ours was lower."""
        return self._sequence.outrank(seq)

    def read(self, received: Received, kind: type[M], sender: str) -> M:
        """Verify a message and that it speaks for `sender` in this federation. Raises `Refused`."""
        message = verify(received.payload, kind)
        if message.federation != self.federation:
            raise Refused("not-for-us", f"federation {message.federation!r}, this is {self.federation!r}")
        if message.sender != sender:
            raise Refused("not-for-us", f"{message.sender!r} speaks on the topic of {sender!r}")
        return message

    def close(self) -> None:
        """Say that we go, and disconnect."""
        if self.session.connected:
            self.status("offline")
        self.session.close()

    def _message(self, kind: type[M], **fields: Any) -> M:
        own: dict[str, Any] = {"seq": self._sequence.next(), "key": self.identity.key}
        return kind(federation=self.federation, sender=self.identity.name, proof=self._proof, **(own | fields))

    def _will(self) -> tuple[str, bytes]:
        self._sequence.renew()
        will: Message = self._message(Status, state="offline", seq=self._sequence.last(), software=__version__)
        return str(self._status_topic), self.identity.sign(will)
