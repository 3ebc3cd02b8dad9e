"""Parcels: packed whole, received in any order, resumed after a cut."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from helpers.wire import PHASE, SEALED, SUITES, keyring

from floe import messages as m
from floe.errors import Refused
from floe.keyring import Keyring
from floe.parcel import Buffers, Incoming, Parcel, forget, pack, saved_parcels

CHUNK = 64 * 1024
PAYLOAD = bytes(i % 253 for i in range(3 * CHUNK + 17))  # four chunks, the last of 17 bytes


def _pack(folder: Path, ring: Keyring, payload: bytes | Buffers | None = PAYLOAD) -> Parcel:
    source = folder / "source"
    if isinstance(payload, bytes):
        source.write_bytes(payload)
    return pack(
        folder, source if isinstance(payload, bytes) else payload, '{"samples":1}', ring,
        federation="floe", phase=PHASE, kind="update", sender="ann", base="",
    )  # fmt: skip


def _incoming(parcel: Parcel, ring: Keyring, path: Path) -> Incoming:
    return Incoming(parcel.core, ring.open(parcel.core, parcel.envelope(ring, "main")), path)


@pytest.mark.parametrize("suite", SUITES)
def test_chunks_that_come_in_any_order_twice_and_all_give_the_payload(suite: m.Suite, tmp_path: Path) -> None:
    ring = keyring(suite)
    parcel = _pack(tmp_path, ring)
    incoming = _incoming(parcel, ring, tmp_path / "part")
    order = [*range(4), *range(4)]
    random.Random(1).shuffle(order)
    assert [incoming.add(i, parcel.chunk(i)) for i in order].count(True) == 4
    assert incoming.assembly.complete
    sha256 = incoming.open_to(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == PAYLOAD
    assert len(sha256) == 64


def test_after_half_of_the_chunks_another_process_asks_only_for_the_rest(tmp_path: Path) -> None:
    ring = keyring("aes-256-gcm")
    parcel = _pack(tmp_path, ring)
    first = _incoming(parcel, ring, tmp_path / "part")
    first.add(1, parcel.chunk(1))
    first.add(3, parcel.chunk(3))
    second = _incoming(parcel, ring, tmp_path / "part")
    second.resume()
    assert second.assembly.missing() == ((0, 1), (2, 3))


def test_a_chunk_that_the_disk_has_altered_is_missing_after_a_restart(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    parcel = _pack(tmp_path, ring)
    first = _incoming(parcel, ring, tmp_path / "part")
    for index in range(4):
        first.add(index, parcel.chunk(index))
    content = bytearray((tmp_path / "part").read_bytes())
    content[CHUNK + 16 + 5] ^= 1
    (tmp_path / "part").write_bytes(content)
    second = _incoming(parcel, ring, tmp_path / "part")
    second.resume()
    assert second.assembly.missing() == ((1, 2),)


def test_what_another_transfer_left_in_the_file_is_not_taken(tmp_path: Path) -> None:
    ring = keyring("plaintext")
    old = _incoming(_pack(tmp_path, ring), ring, tmp_path / "part")
    (tmp_path / "part").write_bytes(PAYLOAD)
    new = _pack(tmp_path, ring, bytes(10))
    again = _incoming(new, ring, tmp_path / "part")
    again.resume()
    assert again.assembly.have == set()
    again.add(0, new.chunk(0))
    again.open_to(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == bytes(10)
    old.remove()
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("suite", SEALED)
def test_the_wrong_chunk_is_not_written(suite: m.Suite, tmp_path: Path) -> None:
    ring = keyring(suite)
    parcel = _pack(tmp_path, ring)
    incoming = _incoming(parcel, ring, tmp_path / "part")
    for index, sealed in ((0, parcel.chunk(1)), (3, parcel.chunk(3)[:-1]), (4, parcel.chunk(0)), (0, b"")):
        with pytest.raises(Refused, match="chunk"):
            incoming.add(index, sealed)
    assert incoming.assembly.have == set()
    assert not (tmp_path / "part").exists()


def test_two_parcels_of_the_same_payload_have_nothing_in_common(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    one, other = _pack(tmp_path, ring), _pack(tmp_path, ring)
    assert one.name != other.name
    assert not set(one.core.chunks) & set(other.core.chunks)


def test_the_report_alone_has_no_chunks(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    parcel = _pack(tmp_path, ring, None)
    assert (parcel.core.size, parcel.core.chunks) == (0, ())
    opened = ring.open(parcel.core, parcel.envelope(ring, "main"))
    assert opened.open_meta(parcel.core.meta) == '{"samples":1}'


def test_saved_parcels_are_found_after_a_restart_and_forgotten_ones_are_not(tmp_path: Path) -> None:
    ring = keyring("fernet")
    one, other = _pack(tmp_path, ring), _pack(tmp_path, ring)
    assert saved_parcels(tmp_path, print) == [one, other]
    forget(one)
    assert [parcel.chunk(2) for parcel in saved_parcels(tmp_path, print)] == [other.chunk(2)]
    assert not one.chunks.exists()


def test_what_a_crash_left_of_packing_or_forgetting_is_removed(tmp_path: Path) -> None:
    for name in ("00.packing", ".00.packing.part", ".aa.json.part", "aa.chunks"):
        (tmp_path / name).write_bytes(b"half")
    assert saved_parcels(tmp_path, print) == []
    assert list(tmp_path.iterdir()) == []


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def _another(path: Path, field: str) -> None:
    saved = json.loads(path.read_bytes())
    place = saved if field in saved else saved["core"]
    place[field] = {"content_key": base64.b64encode(bytes(32)).decode(), "size": 10**15}[field]
    path.write_text(json.dumps(saved))


def _record(parcel: Parcel) -> Path:
    return parcel.chunks.with_suffix(".json")


DAMAGE: dict[str, Callable[[Parcel], object]] = {
    "record cut": lambda p: _record(p).write_bytes(b"{"),
    "record empty": lambda p: _record(p).write_bytes(b""),
    "record of random bytes": lambda p: _record(p).write_bytes(bytes(range(256))),
    "record that claims more": lambda p: _another(_record(p), "size"),
    "record with another key": lambda p: _another(_record(p), "content_key"),
    "record that is a folder": lambda p: (_record(p).unlink(), _record(p).mkdir()),
    "chunks cut": lambda p: p.chunks.write_bytes(p.chunks.read_bytes()[:-1]),
    "chunks empty": lambda p: p.chunks.write_bytes(b""),
    "chunks missing": lambda p: p.chunks.unlink(),
    "chunks with another byte": lambda p: _flip(p.chunks, 2 * CHUNK),
    "chunks that are a folder": lambda p: (p.chunks.unlink(), p.chunks.mkdir()),
    "chunks that cannot be read": lambda p: (p.chunks.unlink(), p.chunks.symlink_to(p.chunks)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_parcel_is_set_aside_and_named_and_the_others_found(tmp_path: Path, damage: str) -> None:
    ring, told = keyring("chacha20-poly1305"), list[str]()
    hit, whole, report = (_pack(tmp_path, ring, load) for load in (PAYLOAD, PAYLOAD, None))
    DAMAGE[damage](hit)
    assert saved_parcels(tmp_path, told.append) == [whole, report]
    assert f"{hit.name}.json: set aside as {hit.name}.json.damaged: the transfer is damaged" in told[0]
    aside = {path.name for path in tmp_path.glob("*.damaged")}
    assert aside == {f"{hit.name}.json.damaged"} | (
        {f"{hit.name}.chunks.damaged"} if "missing" not in damage else set()
    )
    assert saved_parcels(tmp_path, told.append) == [whole, report]
    assert len(told) == len(aside), "what was set aside is told once"


def test_what_is_sealed_from_memory_is_what_is_sealed_from_a_file(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    cuts = (PAYLOAD[:5], b"", PAYLOAD[5 : CHUNK + 9], PAYLOAD[CHUNK + 9 :])
    parcel = _pack(tmp_path, ring, [memoryview(cut) for cut in cuts])
    incoming = _incoming(parcel, ring, tmp_path / "part")
    for index in range(len(parcel.core.chunks)):
        incoming.add(index, parcel.chunk(index))
    incoming.open_to(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == PAYLOAD


def test_what_cannot_be_read_of_an_upload_is_set_aside_and_received_anew(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    parcel = _pack(tmp_path, ring)
    (tmp_path / "part").mkdir()
    incoming = _incoming(parcel, ring, tmp_path / "part")
    incoming.resume()
    assert [incoming.add(index, parcel.chunk(index)) for index in range(4)] == [True] * 4
    assert (tmp_path / "part.damaged").is_dir()


def test_a_payload_whose_chunks_do_not_open_leaves_no_file(tmp_path: Path) -> None:
    ring = keyring("aes-256-gcm")
    parcel = _pack(tmp_path, ring)
    wrong = msgspec.structs.replace(parcel.core, round=9)
    opener = keyring("aes-256-gcm").open(parcel.core, parcel.envelope(ring, "main"))
    incoming = Incoming(wrong, type(opener)(opener.suite, bytes(32), 4, opener.chunk_key, b"", ""), tmp_path / "part")
    for index in range(4):
        incoming.add(index, parcel.chunk(index))
    with pytest.raises(Refused, match="unsealing"):
        incoming.open_to(tmp_path / "out")
    assert not (tmp_path / "out").exists()
