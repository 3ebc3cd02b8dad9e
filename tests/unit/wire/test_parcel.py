"""Parcels: packed whole, received in any order, resumed after a cut."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from helpers.wire import PHASE, SEALED, SUITES, keyring

from floe import messages as m
from floe.errors import Refused, StoreError
from floe.keyring import Keyring
from floe.parcel import Buffers, Incoming, Parcel, forget, open_parcel, pack, saved_parcels

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
    assert incoming.finish() == hashlib.sha256(PAYLOAD).hexdigest()
    incoming.move(tmp_path / "folder" / "out")
    assert (tmp_path / "folder" / "out").read_bytes() == PAYLOAD
    incoming.remove()
    assert (tmp_path / "folder" / "out").exists(), "what has its place stays there"


@pytest.mark.parametrize("suite", SUITES)
def test_a_whole_parcel_opens_to_its_payload(suite: m.Suite, tmp_path: Path) -> None:
    parcel = _pack(tmp_path, keyring(suite))
    assert open_parcel(parcel, tmp_path / "out") == hashlib.sha256(PAYLOAD).hexdigest()
    assert (tmp_path / "out").read_bytes() == PAYLOAD


@pytest.mark.parametrize("suite", SUITES)
def test_after_half_of_the_chunks_another_process_asks_only_for_the_rest(suite: m.Suite, tmp_path: Path) -> None:
    ring = keyring(suite)
    parcel = _pack(tmp_path, ring)
    first = _incoming(parcel, ring, tmp_path / "part")
    first.add(0, parcel.chunk(0))
    first.add(3, parcel.chunk(3))
    second = _incoming(parcel, ring, tmp_path / "part")
    second.resume()
    # A Fernet token is never made twice: what was opened cannot be compared with the manifest.
    assert second.assembly.missing() == (((0, 4),) if suite == "fernet" else ((1, 3),))
    for index in (2, 1, 0, 3):
        second.add(index, parcel.chunk(index))
    assert second.finish() == hashlib.sha256(PAYLOAD).hexdigest()
    assert second.path.read_bytes() == PAYLOAD


def test_a_finished_transfer_that_could_not_be_recorded_is_moved_again_or_asked_for_anew(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    parcel = _pack(tmp_path, ring)
    incoming = _incoming(parcel, ring, tmp_path / "part")
    for index in range(4):
        incoming.add(index, parcel.chunk(index))
    for place in ("1/out", "1/out", "2/out"):
        assert incoming.finish() == hashlib.sha256(PAYLOAD).hexdigest()
        incoming.move(tmp_path / place)
    assert [path.name for path in tmp_path.glob("*/out")] == ["out"]
    (tmp_path / "2" / "out").unlink()
    with pytest.raises(StoreError, match="2/out: No such file"):
        incoming.finish()
    assert incoming.assembly.missing() == ((0, 4),)
    assert [incoming.add(index, parcel.chunk(index)) for index in range(4)] == [True] * 4
    assert (tmp_path / "part").read_bytes() == PAYLOAD
    assert incoming.finish() == hashlib.sha256(PAYLOAD).hexdigest()


def test_a_chunk_that_the_disk_has_altered_is_missing_after_a_restart(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    parcel = _pack(tmp_path, ring)
    first = _incoming(parcel, ring, tmp_path / "part")
    for index in range(4):
        first.add(index, parcel.chunk(index))
    content = bytearray((tmp_path / "part").read_bytes())
    content[CHUNK + 5] ^= 1
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
    assert again.finish() == hashlib.sha256(bytes(10)).hexdigest()
    assert again.path.read_bytes() == bytes(10)
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
    incoming.finish()
    assert incoming.path.read_bytes() == PAYLOAD


def test_what_cannot_be_read_of_an_upload_is_set_aside_and_received_anew(tmp_path: Path) -> None:
    ring = keyring("chacha20-poly1305")
    parcel = _pack(tmp_path, ring)
    (tmp_path / "part").mkdir()
    incoming = _incoming(parcel, ring, tmp_path / "part")
    incoming.resume()
    assert [incoming.add(index, parcel.chunk(index)) for index in range(4)] == [True] * 4
    assert (tmp_path / "part.damaged").is_dir()


def test_a_chunk_that_does_not_open_is_not_written(tmp_path: Path) -> None:
    ring = keyring("aes-256-gcm")
    parcel = _pack(tmp_path, ring)
    opener = keyring("aes-256-gcm").open(parcel.core, parcel.envelope(ring, "main"))
    wrong = type(opener)(opener.suite, bytes(32), 4, opener.chunk_key, b"", "")
    incoming = Incoming(parcel.core, wrong, tmp_path / "part")
    with pytest.raises(Refused, match="unsealing"):
        incoming.add(0, parcel.chunk(0))
    assert incoming.assembly.have == set()
    assert not (tmp_path / "part").exists()


def test_a_fernet_chunk_of_another_length_than_its_place_is_not_written(tmp_path: Path) -> None:
    """A token's padding hides up to 15 bytes."""
    ring = keyring("fernet")
    parcel = _pack(tmp_path, ring)
    opener = ring.open(parcel.core, parcel.envelope(ring, "main"))
    longer = opener.seal(3, bytes(18))
    core = msgspec.structs.replace(parcel.core, chunks=(*parcel.core.chunks[:3], hashlib.sha256(longer).hexdigest()))
    incoming = Incoming(core, opener, tmp_path / "part")
    with pytest.raises(Refused, match="unsealing: chunk 3 opens to 18 bytes, not 17"):
        incoming.add(3, longer)
    assert not (tmp_path / "part").exists()
