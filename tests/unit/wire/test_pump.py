"""A want is answered once while its chunks wait to be sent, however often it comes: by devices and the aggregator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from helpers.wire import PHASE, keyring

from aggregator.publisher import Publisher
from floe.keyring import Keyring
from floe.messages import Manifest, Want
from floe.parcel import Parcel, forget, pack
from floe.pump import Pump
from floe.session import WINDOW
from floe.topics import DeviceChunk, ModelChunkTo, ModelManifest, ModelManifestTo, Topic
from floe.wire import Wire

RING: Keyring = keyring("plaintext")
CHUNKS = 40
MANY = 100_000


@dataclass
class Session:
    """A broker that takes what there is room for."""

    connected: bool = True
    outstanding: int = 0


@dataclass
class Sent:
    """What would be published. Stands in for `floe.wire.Wire`."""

    federation: str = "floe"
    session: Session = field(default_factory=Session)
    topics: list[Topic] = field(default_factory=list)

    def send_bytes(self, topic: Topic, payload: bytes) -> None:
        self.topics.append(topic)
        self.session.outstanding += 1

    def send(self, topic: Topic, kind: type[Manifest], **fields: object) -> None:
        self.send_bytes(topic, b"")

    def broker_takes_all(self) -> None:
        self.session.outstanding = 0


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    source = tmp_path / "source"
    source.write_bytes(bytes(CHUNKS * 64 * 1024))
    return pack(
        tmp_path, source, "{}", RING, federation="floe", phase=PHASE, kind="model", sender="main", base="b" * 64
    )


def want(parcel: Parcel, *ranges: tuple[int, int]) -> Want:
    return Want(
        federation="floe", sender="ann", key="k", proof="", seq=1, to="main", transfer=parcel.name, ranges=ranges
    )


def test_a_device_answers_a_hundred_thousand_equal_wants_once(parcel: Parcel) -> None:
    wire = Sent()
    pump = Pump(cast(Wire, wire))
    for _ in range(MANY):
        pump.add(
            parcel.name, parcel, range(CHUNKS), lambda index: DeviceChunk("floe", "ann", "main", 3, parcel.name, index)
        )
    while len(wire.topics) < CHUNKS:
        pump.run()
        assert wire.session.outstanding <= WINDOW
        wire.broker_takes_all()
    pump.run()
    assert [topic.index for topic in wire.topics if isinstance(topic, DeviceChunk)] == list(range(CHUNKS))


def test_the_aggregator_answers_a_hundred_thousand_equal_wants_once(parcel: Parcel) -> None:
    wire = Sent(session=Session(connected=False))
    publisher = Publisher(cast(Wire, wire), RING, "main", holds=1)
    publisher.publish(parcel)
    for _ in range(MANY):
        publisher.serve(want(parcel, (0, 3), (7, 9)), 0.0)
    wire.session.connected = True
    for _ in range(10):
        publisher.run()
        wire.broker_takes_all()
    served = [topic.index for topic in wire.topics if isinstance(topic, ModelChunkTo)]
    assert served == [0, 1, 2, 7, 8]


def test_a_manifest_is_sent_twice_a_second_however_often_it_is_asked_for(parcel: Parcel) -> None:
    wire = Sent()
    publisher = Publisher(cast(Wire, wire), RING, "main", holds=1)
    publisher.publish(parcel)
    for number in range(MANY):
        publisher.serve(want(parcel), number / MANY)  # within one second
    assert sum(isinstance(topic, ModelManifestTo) for topic in wire.topics) == 2


def test_what_has_gone_is_sent_again_to_whoever_asks_again(parcel: Parcel) -> None:
    wire = Sent()
    publisher = Publisher(cast(Wire, wire), RING, "main", holds=1)
    publisher.publish(parcel)
    for _ in range(2):
        publisher.serve(want(parcel, (5, 6)), 0.0)
        for _ in range(10):
            publisher.run()
            wire.broker_takes_all()
    assert [topic.index for topic in wire.topics if isinstance(topic, ModelChunkTo)] == [5, 5]


def test_a_parcel_that_is_forgotten_while_it_is_wanted_stops_nothing(parcel: Parcel) -> None:
    wire = Sent(session=Session(connected=False))
    publisher = Publisher(cast(Wire, wire), RING, "main", holds=1)
    publisher.publish(parcel)
    publisher.serve(want(parcel, (0, 3)), 0.0)
    forget(parcel)
    wire.session.connected = True
    wire.broker_takes_all()
    publisher.run()
    assert [topic for topic in wire.topics if not isinstance(topic, ModelManifest)] == []
