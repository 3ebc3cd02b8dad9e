"""An attacker, whose friend the broker is: what it makes with the keys that it has is heard by whom it likes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from floe import weights
from floe.identity import Identity, load_identity
from floe.keyring import EnrolledKeyring, Keyring, Ring
from floe.messages import Core, Envelope, Kind, M, Manifest, Round, Suite
from floe.own_keys import load_keys
from floe.parcel import Parcel, pack, seal_meta
from floe.report import Metrics, Report
from floe.seal import wrap_shared
from floe.signing import to_text
from floe.telemetry import Telemetry
from floe.topics import DeviceChunk, DeviceManifest, Topic
from helpers.enrolment import Enrolled
from helpers.federation import LINEAGE, NAME

if TYPE_CHECKING:
    from helpers.arena import Arena

GOOD = Report(samples=40, test_samples=20, after=Metrics(loss=0.6, accuracy=0.6))


@dataclass(frozen=True)
class Downgraded(EnrolledKeyring):
    """Seals with whatever suite, and wraps the content key as there was no enrolment: openly, or for all."""

    wrap: str = "hpke"

    def suite_for(self, kind: Kind) -> Suite:
        return self.suite

    def envelope(self, core: Core, content_key: bytes, to: str) -> Envelope:
        match self.wrap:
            case "none":
                return Envelope(to=to, wrap="none", key=to_text(content_key))
            case "shared":
                return wrap_shared(core, content_key, b"", to)
        return super().envelope(core, content_key, to)


def downgraded(keyring: EnrolledKeyring, how: str) -> Keyring:
    """`plaintext`, `fernet`, or the good suite under a wrap `shared` or `none`."""
    if how == "plaintext":
        return Keyring("plaintext", None)
    suite: Suite = "fernet" if how == "fernet" else keyring.suite
    return Downgraded(suite, None, keyring.private, keyring.ring, how)


class Attacker:
    """Makes messages, sealed and signed with its keys, and gives them to whom it likes: the broker is its friend."""

    def __init__(self, arena: Arena, name: str, keys: str = "") -> None:
        self.arena, self.name = arena, name
        self.folder = arena.folder / "attackers" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        if keys:
            made = load_keys(arena.folder / "state" / f"device-{keys}", keys)
            self.identity = Identity(name, made.identity.private)
        else:
            self.identity = load_identity(self.folder / "keys", name)

    def sign(self, kind: type[M], **fields: Any) -> bytes:
        """A message; sender and federation are as said, or as they should be."""
        header = {"federation": NAME, "sender": self.name, "key": self.identity.key, "proof": "", "seq": 2**40}
        return self.identity.sign(kind(**(header | fields)))

    def tell(self, client: str, topic: Topic, payload: bytes) -> None:
        self.arena.proxy.say(client, str(topic), payload)

    def keyring(self) -> EnrolledKeyring:
        """What is needed to seal to the aggregator, which is public."""
        federation = self.arena.federation
        assert isinstance(federation, Enrolled)
        roster = federation.roster("a")
        made = load_keys(federation.state("c"), "c")
        ring = Ring(roster.version, {LINEAGE: roster.aggregator(LINEAGE).sealing})
        return EnrolledKeyring("chacha20-poly1305", None, made.sealing, ring)

    def update(self, number: int, keyring: Keyring | None = None) -> Parcel:
        """An update for a round: the weights that it starts from."""
        order = self.arena.read(Round, "/main/round")
        assert order.phase.round == number
        assert order.base is not None
        base = self.arena.federation.model(number - 1)
        arrays = {name: array for name, array in weights.read(base).items() if not name.startswith("scaling.")}
        source = self.folder / "update.safetensors"
        weights.write(source, arrays, {"schema": weights.read_layout_of(base).metadata["schema"]})
        return pack(
            self.folder, source, msgspec.json.encode(GOOD).decode(), keyring or self.keyring(), federation=NAME,
            phase=order.phase, kind="update", sender=self.name, base=order.base.sha256,
        )  # fmt: skip

    def telemetry(self, told: Telemetry, seq: int, wrap: Callable[[Core, bytes], Envelope] | None = None) -> bytes:
        """A message that says how this device is; `wrap` seals its content key, otherwise to the aggregator."""
        keyring, order = self.keyring(), self.arena.read(Round, "/main/round")
        core, content_key = seal_meta(
            msgspec.json.encode(told).decode(), keyring, federation=NAME, phase=order.phase, kind="telemetry",
            sender=self.name, base="",
        )  # fmt: skip
        envelope = wrap(core, content_key) if wrap else keyring.envelope(core, content_key, LINEAGE)
        return self.sign(Manifest, core=core, envelope=envelope, seq=seq)

    def announce(self, parcel: Parcel, keyring: Keyring | None = None, place: str = "") -> None:
        """Say what will come, on the topic of device `place`, or one's own."""
        envelope = parcel.envelope(keyring or self.keyring(), LINEAGE)
        payload = self.sign(Manifest, core=parcel.core, envelope=envelope)
        self.tell(LINEAGE, DeviceManifest(NAME, place or self.name, LINEAGE, parcel.core.round), payload)

    def deliver(self, parcel: Parcel, keyring: Keyring | None = None) -> dict[str, Any]:
        """Announce, and serve."""
        self.announce(parcel, keyring)
        return self.serve(parcel)

    def serve(self, parcel: Parcel) -> dict[str, Any]:
        """Every chunk, if it is asked for; the aggregator's answer."""
        told = (f"/to/{self.name}/want", f"/to/{self.name}/answer")
        mine = self.arena.heard(
            lambda m: m.upward and m.topic.endswith(told) and json.loads(m.payload)["transfer"] == parcel.name
        )
        if mine.topic.endswith("/want"):
            for index in range(len(parcel.core.chunks)):
                topic = DeviceChunk(NAME, self.name, LINEAGE, parcel.core.round, parcel.name, index)
                self.tell(LINEAGE, topic, parcel.chunk(index))
            mine = self.arena.heard(
                lambda m: m.topic.endswith(told[1]) and json.loads(m.payload)["transfer"] == parcel.name
            )
        answer: dict[str, Any] = json.loads(mine.payload)
        return answer
