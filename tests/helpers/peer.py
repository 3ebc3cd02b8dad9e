"""A device without a trainer that does what a test says, rightly or wrongly, over the real wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np

from floe import weights
from floe.identity import load_identity, load_secret
from floe.keyring import Keyring
from floe.messages import Answer, M, Manifest, Message, Round, Want
from floe.parcel import Parcel, pack
from floe.report import Metrics, Report
from floe.schema import Schema
from floe.sequence import Sequence as SequenceNumbers
from floe.session import Connected, Received
from floe.settings import Mqtt
from floe.signing import verify
from floe.topics import AnswerTo, CurrentRound, DeviceChunk, DeviceManifest, DeviceStatus, WantTo, filter_of
from floe.transfer import from_ranges
from floe.wire import Wire
from helpers.federation import LINEAGE, NAME, Federation

ANSWER_S = 20.0
GOOD = Report(
    samples=40, test_samples=20, before=Metrics(loss=0.7, accuracy=0.5), after=Metrics(loss=0.6, accuracy=0.6)
)
KINDS: dict[str, type[Message]] = {"round": Round, "want": Want, "answer": Answer, "manifest": Manifest}
Arrays = Mapping[str, weights.AnyArray]


class Peer:
    """One scripted device of a federation; online while the block lasts.

    A stranger has no secret.key, and so no proof. `overhears` are filters of what is meant for others.
    """

    def __init__(
        self, federation: Federation, device: str, *, stranger: bool = False, overhears: Sequence[str] = ()
    ) -> None:
        self.federation = federation
        self.device = device
        self.folder = federation.folder / "peers" / device
        self.folder.mkdir(parents=True, exist_ok=True)
        self.identity = load_identity(self.folder / "keys", device)
        secret = None if stranger else load_secret(federation.folder / "secret.key", self.folder)
        self.keyring = Keyring("chacha20-poly1305" if secret else "plaintext", secret)
        self.last_round = b""
        self._heard: list[Received] = []
        filters = [
            filter_of(kind, federation=NAME, lineage=LINEAGE, **({} if kind is CurrentRound else {"device": device}))
            for kind in (WantTo, AnswerTo, CurrentRound)
        ]
        topic = DeviceStatus(NAME, device)
        numbers = SequenceNumbers(self.folder / "sequence")
        mqtt = Mqtt(port=federation.port)
        self.wire = Wire(mqtt, NAME, self.identity, self.keyring, numbers, topic, [*filters, *overhears])

    def __enter__(self) -> Peer:
        self.wire.session.connect(lambda: False, print)
        while not isinstance(self.wire.session.next(ANSWER_S), Connected):
            pass
        self.wire.status("online")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wire.close()

    def listen(self, kind: type[M], fits: Callable[[M], bool] = lambda message: True) -> M:
        """The next message of a kind that fits; what was heard before counts, each message once."""
        found = self.hear(lambda message: isinstance(message, kind) and fits(message))
        assert isinstance(found, kind)
        return found

    def hear(self, fits: Callable[[Message], bool]) -> Message:
        """The next message that fits, of any kind."""
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end:
            for received in self._heard:
                message = verify(received.payload, KINDS[json.loads(received.payload)["type"]])
                if fits(message):
                    self._heard.remove(received)
                    self.last_round = received.payload if isinstance(message, Round) else self.last_round
                    return message
            event = self.wire.session.next(0.2)
            if isinstance(event, Received):
                self._heard.append(event)
                self.wire.session.ack(event)
        raise AssertionError(f"{self.device} heard nothing that fits\n{self.federation.said()}")

    def order(self, task: str = "train") -> Round:
        """The open round of a task that counts on this device."""

        def expected(order: Round) -> bool:
            sql = "SELECT expected FROM rounds WHERE round = ? AND task = ? AND state = 'open'"
            rows = self.federation.query(sql, order.phase.round, order.phase.task)
            return order.phase.task == task and any(self.device in json.loads(row["expected"]) for row in rows)

        return self.listen(Round, expected)

    def base_arrays(self, order: Round) -> dict[str, weights.AnyArray]:
        """The weights that a round starts from, without the scaling."""
        arrays = weights.read(self.federation.model(order.phase.round - 1))
        return {name: array for name, array in arrays.items() if not name.startswith("scaling.")}

    def pack(self, order: Round, arrays: Arrays | None = None, report: Report | Mapping[str, Any] = GOOD) -> Parcel:
        """An update for a round, sealed; without arrays with the weights that the round starts from, a little moved."""
        given = arrays if arrays is not None else {n: a + np.float32(0.01) for n, a in self.base_arrays(order).items()}
        source = self.folder / "update.safetensors"
        weights.write(source, given, {"schema": self.schema(order)})
        return self._pack(order, source if given else None, report)

    def pack_file(self, order: Round, content: bytes) -> Parcel:
        """An update whose weights file has these bytes."""
        source = self.folder / "update.safetensors"
        source.write_bytes(content)
        return self._pack(order, source, GOOD)

    def give_first_model(self, tensors: Sequence[str], features: Sequence[str]) -> Answer:
        """Make the first model when it is asked for: two zeros a tensor, of these names."""
        order, path = self.order("init"), self.folder / "init.safetensors"
        schema = Schema((len(features),), 2, tuple(features))
        weights.write(path, {name: np.zeros(2, np.float32) for name in tensors}, {"schema": schema.to_json()})
        return self.deliver(self.pack_file(order, path.read_bytes()))

    def schema(self, order: Round) -> str:
        path = self.federation.model(order.phase.round - 1)
        return weights.read_layout_of(path).metadata["schema"] if path.exists() else "{}"

    def manifest(self, parcel: Parcel, **changes: Any) -> Manifest:
        """The manifest of a parcel; `changes` go into its core (by name) or over its own fields."""
        core_changes = {
            k: changes.pop(k) for k in list(changes) if k in parcel.core.__struct_fields__ and k != "sender"
        }
        core = msgspec.structs.replace(parcel.core, **core_changes)
        fields: dict[str, Any] = {
            **self.header(self.device), "seq": 0, "core": core, "envelope": parcel.envelope(self.keyring, LINEAGE),
        }  # fmt: skip
        return Manifest(**{**fields, **changes})

    def header(self, sender: str) -> dict[str, str]:
        """Who speaks: this peer's key under any name, with the proof that it can make for that."""
        key = self.identity.key
        return {"federation": NAME, "sender": sender, "key": key, "proof": self.keyring.proof(NAME, sender, key)}

    def announce(self, manifest: Manifest, payload: bytes | None = None) -> None:
        """Publish a manifest on this device's topic, signed, or as other bytes."""
        topic = DeviceManifest(NAME, self.device, LINEAGE, manifest.core.round)
        self.wire.send_bytes(topic, self.identity.sign(manifest) if payload is None else payload)

    def serve(self, parcel: Parcel, alter: Callable[[int, bytes], bytes] = lambda index, chunk: chunk) -> None:
        """Answer one want with the chunks that it asks for."""
        want = self.listen(Want, lambda want: want.transfer == parcel.name)
        for index in from_ranges(want.ranges, len(parcel.core.chunks)):
            self.send_chunk(parcel, index, alter(index, parcel.chunk(index)))

    def send_chunk(self, parcel: Parcel, index: int, sealed: bytes) -> None:
        core = parcel.core
        self.wire.send_bytes(DeviceChunk(NAME, self.device, core.lineage, core.round, parcel.name, index), sealed)

    def deliver(self, parcel: Parcel) -> Answer:
        """Announce, serve what is asked for, and give the answer, as a good device does."""
        self.announce(self.manifest(parcel))

        def about_it(message: Message) -> bool:
            return isinstance(message, Want | Answer) and message.transfer == parcel.name

        while isinstance(heard := self.hear(about_it), Want):
            for index in from_ranges(heard.ranges, len(parcel.core.chunks)):
                self.send_chunk(parcel, index, parcel.chunk(index))
        assert isinstance(heard, Answer)
        return heard

    def leave(self) -> None:
        """Offline, with an answer for the round that still expects this device: nobody waits for it."""
        self.wire.status("offline")
        self.federation.until("SELECT * FROM devices WHERE device = ? AND state = 'offline'", self.device)
        sql = "SELECT round, expected FROM rounds r WHERE state = 'open' AND NOT EXISTS (SELECT * FROM updates u "
        sql += "WHERE u.round = r.round AND u.task = r.task AND device = ? AND outcome IN ('accepted', 'rejected'))"
        for row in self.federation.query(sql, self.device):
            if self.device in json.loads(row["expected"]):
                self.deliver(self.pack(self._order_of(row["round"]), {}, Report(failure="it leaves")))

    def answer(self, transfer: str) -> Answer:
        return self.listen(Answer, lambda answer: answer.transfer == transfer)

    def _order_of(self, number: int) -> Round:
        """The document of a round, heard before or still to come."""
        if self.last_round and (last := verify(self.last_round, Round)).phase.round == number:
            return last
        return self.listen(Round, lambda order: order.phase.round == number)

    def _pack(self, order: Round, source: Path | None, report: Report | Mapping[str, Any]) -> Parcel:
        return pack(
            self.folder, source, msgspec.json.encode(report).decode(), self.keyring, federation=NAME,
            phase=order.phase, kind="update", sender=self.device, base=order.base.sha256 if order.base else "",
        )  # fmt: skip
