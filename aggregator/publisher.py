"""The global model on its way out: its manifest retained, every chunk once for everybody, then to whoever asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from functools import partial

from floe.keyring import Keyring
from floe.messages import Manifest, Want
from floe.parcel import Parcel
from floe.pump import Pump
from floe.topics import ModelChunk, ModelChunkTo, ModelManifest, ModelManifestTo, Topic
from floe.transfer import from_ranges
from floe.wire import Wire

EVERYBODY = "*"
PAUSE_S = 0.5  # a manifest is sent to one device no more often: devices ask again after a second


class Publisher:
    """Serves the newest global model of one lineage, and to who asks those before it, `holds` in all."""

    def __init__(self, wire: Wire, keyring: Keyring, lineage: str, *, holds: int) -> None:
        self._parcels: deque[Parcel] = deque(maxlen=holds)
        self._wire = wire
        self._keyring = keyring
        self._lineage = lineage
        self._pump = Pump(wire)
        self._told: dict[str, float] = {}

    def publish(self, parcel: Parcel, devices: Collection[str] | None = None) -> None:
        """A new model: push it to all who listen, or to these devices. The same again is only announced."""
        new = not self._parcels or self._parcels[-1].name != parcel.name
        if new:
            self._told.clear()
            self._parcels.append(parcel)
        self.announce()
        if new and devices is None:
            self._push(EVERYBODY, parcel, partial(self._chunk_topic, parcel))
        for device in sorted(devices or ()) if new else ():
            self._push(device, parcel, partial(self._chunk_topic_to, parcel, device))

    def announce(self) -> None:
        """Publish the manifest, retained: after a new model, and whenever the broker may have lost it."""
        if self._parcels:
            topic = ModelManifest(self._wire.federation, self._lineage)
            self._send_manifest(topic, self._parcels[-1], retain=True)

    def serve(self, want: Want, now: float) -> None:
        """Send a device what it asks for; a want without ranges asks for the manifest. Raises `Refused`.

        However often it asks: chunks that wait to be sent go once, the manifest twice a second.
        """
        device = want.sender
        parcel = next((held for held in self._parcels if held.name == want.transfer), None)
        if parcel is None:
            return  # of an older model: the device learns of the newer one by its manifest
        if not want.ranges and now >= self._told.get(device, 0.0):
            self._told[device] = now + PAUSE_S
            self._send_manifest(ModelManifestTo(self._wire.federation, self._lineage, device), parcel, retain=False)
        indices = from_ranges(want.ranges, len(parcel.core.chunks))
        self._pump.add(device, parcel, indices, partial(self._chunk_topic_to, parcel, device))

    def run(self) -> None:
        """Publish as much as there is room for."""
        self._pump.run()

    def _push(self, key: str, parcel: Parcel, topic_of: Callable[[int], Topic]) -> None:
        self._pump.add(key, parcel, range(len(parcel.core.chunks)), topic_of)

    def _send_manifest(self, topic: ModelManifest | ModelManifestTo, parcel: Parcel, *, retain: bool) -> None:
        envelope = parcel.envelope(self._keyring, EVERYBODY)
        roster = self._keyring.version
        self._wire.send(topic, Manifest, retain=retain, core=parcel.core, envelope=envelope, roster=roster)

    def _chunk_topic(self, parcel: Parcel, index: int) -> ModelChunk:
        return ModelChunk(self._wire.federation, self._lineage, parcel.core.round, parcel.name, index)

    def _chunk_topic_to(self, parcel: Parcel, device: str, index: int) -> ModelChunkTo:
        core = parcel.core
        return ModelChunkTo(self._wire.federation, self._lineage, device, core.round, parcel.name, index)
