"""One simulated device: everything that goes over the wire is real, but it trains nothing and has neither process nor
thread of its own.

It keeps to PROTOCOL.md as `edge_client` does: its own key, status and will; it fetches the model, opens and checks
it, seals a result, announces it until it is answered, and sends the chunks that it is asked for. The n-th device
adds n to every number of the model and says that it was trained on n rows, so that a mean can be foretold.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.links import Link
from floe import __version__, weights
from floe.errors import Refused
from floe.identity import load_identity
from floe.keyring import Keyring
from floe.messages import Answer, M, Manifest, Phase, Round, Status, Want
from floe.parcel import Incoming, Parcel, forget, pack
from floe.pump import Pump
from floe.report import Metrics, Report
from floe.selection import takes_part
from floe.sequence import SESSION
from floe.settings import Config
from floe.signing import short, verify
from floe.topics import (
    AggregatorStatus,
    AnswerTo,
    CurrentRound,
    DeviceChunk,
    DeviceManifest,
    DeviceStatus,
    DeviceWant,
    ModelChunk,
    ModelChunkTo,
    ModelManifest,
    ModelManifestTo,
    Topic,
    WantTo,
    filter_of,
    parse,
)
from floe.transfer import from_ranges, name_of

LISTENS_TO = (
    *(AggregatorStatus, WantTo, AnswerTo, ModelManifestTo, ModelChunkTo),
    *(ModelManifest, ModelChunk, CurrentRound, DeviceStatus),
)
ANNOUNCE_S, HEARD_S, REPAIR_S, LONGEST_S, STATUS_S = 3.0, 6.0, 1.0, 60.0, 60.0  # PROTOCOL.md, 6.5
NOTHING = Metrics(loss=0.0, accuracy=0.0)


@dataclass
class _Repeated:
    """Something that is said again after growing pauses."""

    first_s: float
    due: float = 0.0
    tries: int = 0

    def now(self, moment: float) -> bool:
        if moment < self.due:
            return False
        pause = min(self.first_s * 2**self.tries, LONGEST_S) * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)
        self.due, self.tries = moment + pause, self.tries + 1
        return True

    def wait(self, until: float) -> None:
        self.due, self.tries = until, 0


class Simulated:
    """Device number `number` of a federation; `came(round)` is told of every global model that it has in hands."""

    def __init__(
        self, number: int, config: Config, keyring: Keyring, folder: Path, came: Callable[[int], None]
    ) -> None:
        self.name = f"device-{number}"
        self._number = number
        self._federation = federation = config.federation.name
        self._lineage = lineage = config.rounds.lineage
        self._keyring = keyring
        self._folder = folder
        self._came = came
        self._identity = load_identity(folder / "keys", self.name, config.security.signatures)
        self._key = self._identity.key
        self._proof = keyring.proof(federation, self.name, self._key)
        self._seq = itertools.count(SESSION)
        self._aggregator_key = ""
        self._order: Round | None = None
        self._incoming: Incoming | None = None
        self._transfer = ""
        self._base, self._base_path = "", folder / "base.safetensors"
        self._fetch = _Repeated(REPAIR_S)
        self._parcel: Parcel | None = None
        self._announce = _Repeated(ANNOUNCE_S)
        self._done: set[Phase] = set()
        self._said, self._said_at = "online", 0.0
        levels = {"federation": federation, "lineage": lineage, "device": self.name}
        filters = [
            filter_of(kind, **{k: v for k, v in levels.items() if k in kind.__dataclass_fields__})
            for kind in LISTENS_TO
        ]
        will = str(DeviceStatus(federation, self.name)), self._signed(Status, state="offline", seq=2 * SESSION - 1)
        self.link = Link(f"floe-{self.name}-{short(self._key)}", filters, will, self)
        self._pump = Pump(self.link)

    def connected(self) -> None:
        self._status("online")

    def received(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """One message. Raises `Refused`: in a benchmark nobody breaks the protocol."""
        match parse(topic):
            case ModelChunk() | ModelChunkTo() as at:
                self._on_chunk(at, payload)
            case CurrentRound():
                self._order = self._read(payload, Round)
            case ModelManifest() | ModelManifestTo():
                self._on_model(self._read(payload, Manifest), retained=retained)
            case WantTo():
                self._on_want(self._read(payload, Want))
            case AnswerTo():
                self._on_answer(self._read(payload, Answer))
            case AggregatorStatus():
                if self._read(payload, Status).state == "online" and not retained:
                    self._announce.wait(0.0)
                    self._status("online")
            case DeviceStatus():
                verify(payload, Status)  # our own
        self.turn(time.monotonic())

    def published(self) -> None:
        """There is room for another chunk."""
        self._pump.run()

    def turn(self, now: float) -> None:
        """What is due by now."""
        order = self._order
        if order is not None and order.state == "open" and order.phase not in self._done and self._selected(order):
            if order.base is None or order.base.sha256 == self._base:
                self._work(order)
            elif self._fetch.now(now):
                announced = self._incoming is not None and self._transfer == order.base.transfer
                ranges = self._incoming.assembly.missing() if self._incoming and announced else ()
                topic = DeviceWant(self._federation, self.name, self._lineage)
                self._send(topic, Want, to=self._lineage, transfer=order.base.transfer, ranges=ranges)
        if self._parcel is not None and self._announce.now(now):
            core = self._parcel.core
            envelope = self._parcel.envelope(self._keyring, self._lineage)
            topic_of = DeviceManifest(self._federation, self.name, self._lineage, core.round)
            self._send(topic_of, Manifest, core=core, envelope=envelope)
        if self.link.connected and now >= self._said_at + STATUS_S:
            self._status(self._said)
        self._pump.run()

    def _selected(self, order: Round) -> bool:
        return takes_part(self.name, order.phase, order.plan.seed, order.bar, order.devices)

    def _on_model(self, manifest: Manifest, *, retained: bool) -> None:
        core, name = manifest.core, name_of(manifest.core)
        if core.base == self._base or name == self._transfer:
            return
        opener = self._keyring.open(core, manifest.envelope)
        self._incoming, self._transfer = Incoming(core, opener, self._folder / "base.part"), name
        self._fetch.wait(0.0 if retained else time.monotonic() + REPAIR_S)

    def _on_chunk(self, topic: ModelChunk | ModelChunkTo, payload: bytes) -> None:
        incoming = self._incoming
        if incoming is None or topic.transfer != self._transfer:
            return
        if incoming.add(topic.index, payload):
            self._fetch.wait(time.monotonic() + REPAIR_S)
        if not incoming.assembly.complete:
            return
        sha256 = incoming.finish()
        if sha256 != incoming.core.base:
            raise Refused("weights", f"{self.name}: the model is not the one that its manifest names")
        weights.check_numbers(incoming.path)
        incoming.move(self._base_path)
        self._incoming, self._transfer, self._base = None, "", sha256
        self._came(incoming.core.round)

    def _work(self, order: Round) -> None:
        self._status("training")
        layout, buffers = weights.read_layout_of(self._base_path), None
        report = Report(samples=self._number, test_samples=1, before=NOTHING)
        if order.phase.task == "train":
            trained = {name: array + np.float32(self._number) for name, array in weights.read(self._base_path).items()}
            buffers = weights.buffers(trained, layout.metadata)
        if self._parcel is not None:
            forget(self._parcel)
        self._parcel = pack(
            self._folder, buffers, msgspec.json.encode(report).decode(), self._keyring, federation=self._federation,
            phase=order.phase, kind="update", sender=self.name, base=self._base,
        )  # fmt: skip
        self._done.add(order.phase)
        self._announce.wait(0.0)
        self._status("idle")

    def _on_want(self, want: Want) -> None:
        parcel = self._parcel
        if parcel is None or want.transfer != parcel.name:
            return
        self._announce.wait(time.monotonic() + HEARD_S)
        at = (self._federation, self.name, self._lineage, parcel.core.round, parcel.name)
        indices = from_ranges(want.ranges, len(parcel.core.chunks))
        self._pump.add(parcel.name, parcel, indices, lambda index: DeviceChunk(*at, index))

    def _on_answer(self, answer: Answer) -> None:
        parcel = self._parcel
        if parcel is None or answer.transfer != parcel.name:
            return
        if answer.outcome != "accepted":
            raise Refused(answer.reason, f"{self.name}: {answer.outcome}: {answer.detail}")
        self._pump.drop(parcel.name)
        forget(parcel)
        self._parcel = None

    def _read(self, payload: bytes, kind: type[M]) -> M:
        """A message of the aggregator: signed by the key that was seen first and proved."""
        message = verify(payload, kind)
        if not self._aggregator_key and self._keyring.proves(message):
            self._aggregator_key = message.key
        if message.key != self._aggregator_key:
            raise Refused("unknown-key", f"{self.name}: not the aggregator's key")
        return message

    def _status(self, state: str) -> None:
        self._said, self._said_at = state, time.monotonic()
        phase = self._order.phase if self._order else None
        topic = DeviceStatus(self._federation, self.name)
        self._send(topic, Status, retain=True, state=state, phase=phase, software=__version__)

    def _send(self, topic: Topic, kind: type[M], *, retain: bool = False, **fields: Any) -> None:
        payload = self._signed(kind, seq=next(self._seq), **fields)
        self.link.send_bytes(topic, payload, retain=retain)

    def _signed(self, kind: type[M], **fields: Any) -> bytes:
        message = kind(federation=self._federation, sender=self.name, key=self._key, proof=self._proof, **fields)
        return self._identity.sign(message)
