"""The global model on its way out: its manifest retained, every chunk once for everybody, then to whoever asks."""

from __future__ import annotations

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
    """Serves the newest global model of one lineage."""

    def __init__(self, wire: Wire, keyring: Keyring, lineage: str) -> None:
        self.parcel: Parcel | None = None
        self._wire = wire
        self._keyring = keyring
        self._lineage = lineage
        self._pump = Pump(wire)
        self._told: dict[str, float] = {}

    def publish(self, parcel: Parcel, devices: Collection[str] | None = None) -> None:
        """A new model: push it to all who listen, or to these devices. The same again is only announced."""
        new = self.parcel is None or self.parcel.name != parcel.name
        if new:
            self._told.clear()
        self.parcel = parcel
        self.announce()
        if new and devices is None:
            self._push(EVERYBODY, parcel, partial(self._chunk_topic, parcel))
        for device in sorted(devices or ()) if new else ():
            self._push(device, parcel, partial(self._chunk_topic_to, parcel, device))

    def announce(self) -> None:
        """Publish the manifest, retained: after a new model, and whenever the broker may have lost it."""
        if self.parcel is not None:
            self._send_manifest(ModelManifest(self._wire.federation, self._lineage), retain=True)

    def serve(self, want: Want, now: float) -> None:
        """Send a device what it asks for; a want without ranges asks for the manifest. Raises `Refused`.

        However often it asks: chunks that wait to be sent go once, the manifest twice a second.
        """
        parcel, device = self.parcel, want.sender
        if parcel is None or want.transfer != parcel.name:
            return  # of an older model: the device learns of the newer one by its manifest
        if not want.ranges and now >= self._told.get(device, 0.0):
            self._told[device] = now + PAUSE_S
            self._send_manifest(ModelManifestTo(self._wire.federation, self._lineage, device), retain=False)
        indices = from_ranges(want.ranges, len(parcel.core.chunks))
        self._pump.add(device, parcel, indices, partial(self._chunk_topic_to, parcel, device))

    def run(self) -> None:
        """Publish as much as there is room for."""
        self._pump.run()

    def _push(self, key: str, parcel: Parcel, topic_of: Callable[[int], Topic]) -> None:
        self._pump.add(key, parcel, range(len(parcel.core.chunks)), topic_of)

    def _send_manifest(self, topic: ModelManifest | ModelManifestTo, *, retain: bool) -> None:
        assert self.parcel is not None
        envelope = self.parcel.envelope(self._keyring, EVERYBODY)
        self._wire.send(topic, Manifest, retain=retain, core=self.parcel.core, envelope=envelope)

    def _chunk_topic(self, parcel: Parcel, index: int) -> ModelChunk:
        return ModelChunk(self._wire.federation, self._lineage, parcel.core.round, parcel.name, index)

    def _chunk_topic_to(self, parcel: Parcel, device: str, index: int) -> ModelChunkTo:
        core = parcel.core
        return ModelChunkTo(self._wire.federation, self._lineage, device, core.round, parcel.name, index)
