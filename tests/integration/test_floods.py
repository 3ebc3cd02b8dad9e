"""Who floods is limited, and no more: the round ends with the right model, and nothing grows with the flood."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.federation import LINEAGE, NAME, Federation
from helpers.peer import Peer
from helpers.plain import SECTIONS
from helpers.process import Process
from helpers.proxy import Proxy
from helpers.scene import Stall
from msgspec.structs import replace

from floe.messages import Answer, Manifest, Round, Status, Want
from floe.report import Report
from floe.topics import DeviceChunk, DeviceManifest, DeviceStatus, DeviceWant
from floe.transfer import name_of

FLOOD = 20_000
GROWTH_KB = 30_000  # a model of 2 MB, buffers and what Python keeps; 20,000 messages of 1 kB held would be more
OPEN = "SELECT * FROM updates WHERE device = 'a' AND task = 'train' AND outcome = 'accepted'"


def configure(federation: Federation) -> None:
    sections = {
        **SECTIONS,
        "plan": {**SECTIONS["plan"], "hidden": [500]},  # 31 chunks
        "rounds": {"count": 2, "devices": 2, "members": ["a", "b"]},
    }
    federation.configure(sections)


@pytest.fixture(scope="module")
def quiet(new_federation: object) -> dict[int, str]:
    """The models of the same rounds without a flood."""
    with new_federation("quiet") as federation:  # type: ignore[operator]
        configure(federation)
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device)
        federation.finish()
        return dict(federation.models())


class Flooded:
    """A federation in the middle of round 1 (b's upload hangs), and a member who floods."""

    def __init__(self, federation: Federation, stall: Stall, port: int) -> None:
        configure(federation)
        self.federation, self.stall = federation, stall
        self.aggregator = federation.aggregator()
        federation.client("a")
        federation.client("b", port=port)
        federation.until(OPEN)
        federation.wait(lambda: stall.stalled, "b's upload was to hang")

    def count(self, reason: str, device: str) -> int:
        rows = self.federation.query("SELECT count FROM refusals WHERE reason = ? AND device = ?", reason, device)
        return rows[0]["count"] if rows else 0

    def ends_well(self, quiet: dict[int, str]) -> None:
        self.stall.released = True
        self.federation.finish()
        assert self.federation.models() == quiet
        assert self.aggregator.running


@pytest.fixture
def flooded(federation: Federation) -> Iterator[Flooded]:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        yield Flooded(federation, stall, proxy.port)


def peak_kb(process: Process) -> int:
    """The most memory that a process ever had (proc(5), VmHWM)."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def manifests(peer: Peer, order: Round, many: int) -> Iterator[tuple[object, bytes]]:
    """Each of another transfer, signed, with the proof of a member."""
    manifest = peer.manifest(peer.pack(order, {}, Report(failure="none")))
    for _ in range(many):
        core = replace(manifest.core, salt=os.urandom(16).hex())
        yield DeviceManifest(NAME, peer.device, LINEAGE, core.round), peer.identity.sign(replace(manifest, core=core))


def wants(peer: Peer, order: Round, many: int) -> Iterator[tuple[object, bytes]]:
    """All equal: the whole model, as a broker could play it again."""
    assert order.base is not None
    want = Want(
        **peer.header(peer.device), seq=1, to=LINEAGE, transfer=order.base.transfer, ranges=((0, 31),)
    )  # fmt: skip
    payload = peer.identity.sign(want)
    for _ in range(many):
        yield DeviceWant(NAME, peer.device, LINEAGE), payload


def statuses(peer: Peer, order: Round, many: int) -> Iterator[tuple[object, bytes]]:
    for number in range(many):
        status = Status(**peer.header(peer.device), seq=2**50 + number, state="idle" if number % 2 else "training")
        yield DeviceStatus(NAME, peer.device), peer.identity.sign(status)


def made_up_names(peer: Peer, order: Round, many: int) -> Iterator[tuple[object, bytes]]:
    """A status each, without a proof."""
    for number in range(many):
        status = Status(**(peer.header(f"ghost-{number}") | {"proof": ""}), seq=1, state="online")
        yield DeviceStatus(NAME, f"ghost-{number}"), peer.identity.sign(status)


def chunks(peer: Peer, order: Round, many: int) -> Iterator[tuple[object, bytes]]:
    """Of a transfer that nobody asked for."""
    for number in range(many):
        yield DeviceChunk(NAME, peer.device, LINEAGE, 1, "0" * 32, number % 1024), b"x" * 1000


@pytest.mark.parametrize("what", [manifests, wants, statuses, made_up_names, chunks])
def test_a_flood_changes_no_model_and_nothing_grows_with_it(
    flooded: Flooded, quiet: dict[int, str], what: object
) -> None:
    federation = flooded.federation
    with Peer(federation, "flooder") as peer:
        order = peer.listen(Round, lambda order: order.phase.task == "train")
        peer.announce(peer.manifest(peer.pack(order, {}, Report(failure="none"))))
        assert peer.listen(Answer).reason == "round", "it is no member of the round"
        before = peak_kb(flooded.aggregator)
        rows = len(federation.query("SELECT id FROM updates"))
        events = len(federation.query("SELECT id FROM events"))
        for topic, payload in what(peer, order, FLOOD):  # type: ignore[operator]
            peer.wire.send_bytes(topic, payload)
        reason, device = {"chunks": ("unasked", "flooder"), "made_up_names": ("flood", "")}.get(
            what.__name__,
            ("flood", "flooder"),  # type: ignore[attr-defined]
        )
        federation.wait(lambda: flooded.count(reason, device) > FLOOD // 4, "the flood was to be counted")
        peer.wire.status("idle")  # the last of all in its order: when it is known, everything before it was looked at
        flooded.ends_well(quiet)
    assert peak_kb(flooded.aggregator) - before < GROWTH_KB
    assert len(federation.query("SELECT id FROM updates")) - rows < 30, "rows grew with the flood"
    assert len(federation.query("SELECT id FROM events")) - events < 150, "events grew with the flood"
    assert len(federation.query("SELECT * FROM refusals")) < 20
    assert federation.query("SELECT device FROM devices WHERE device LIKE 'ghost%'") == []


def test_an_honest_device_is_heard_again_when_a_flood_in_its_name_is_over(
    flooded: Flooded, quiet: dict[int, str]
) -> None:
    """Without the broker's ACL anybody may write on b's topics: forged, so nothing of it is believed."""
    with Peer(flooded.federation, "flooder") as peer:
        manifest = peer.manifest(peer.pack(peer.listen(Round, lambda o: o.phase.task == "train"), {}, Report()))
        payload = peer.identity.sign(manifest)
        for _ in range(FLOOD):
            peer.wire.send_bytes(DeviceManifest(NAME, "b", LINEAGE, 1), payload)
        flooded.federation.wait(lambda: flooded.count("flood", "b") > FLOOD // 4, "the flood was to be counted")
        flooded.ends_well(quiet)
    assert flooded.count("not-for-us", "b") > 0


@pytest.mark.parametrize("size", [10**15, 2**53 - 1])
def test_a_size_over_the_cap_costs_neither_memory_nor_a_file(
    flooded: Flooded, quiet: dict[int, str], size: int
) -> None:
    federation = flooded.federation
    with Peer(federation, "liar") as peer:
        order = peer.listen(Round, lambda order: order.phase.task == "train")
        before = peak_kb(flooded.aggregator)
        manifest: Manifest = peer.manifest(
            peer.pack(order, {}, Report(failure="none")), size=size, chunk_size=2**30, chunks=("0" * 64,) * 1024
        )
        peer.announce(manifest)
        answer = peer.answer(name_of(manifest.core))
        assert (answer.outcome, answer.reason) == ("rejected", "oversized")
        assert not (federation.folder / "state/aggregator-main/incoming/liar.manifest").exists()
        assert not (federation.folder / "state/aggregator-main/incoming/liar.part").exists()
        assert peak_kb(flooded.aggregator) - before < 5_000
        flooded.ends_well(quiet)
    assert flooded.count("oversized", "liar") == 1
