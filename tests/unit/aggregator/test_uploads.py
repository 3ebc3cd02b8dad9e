"""Who may upload, what is asked for and asked for again: no socket, the clock passed in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aggregator.uploads import MAX_TRIES, REPAIR_S, Upload, Uploads
from floe.messages import Core, Phase
from floe.parcel import Incoming
from floe.report import Report
from floe.seal import sealer
from floe.transfer import CHUNK_BYTES, Ranges

PHASE = Phase("main", 1, 1, "train")
CHUNKS = [bytes([i]) * CHUNK_BYTES for i in range(4)]


def upload(folder: Path, device: str) -> Upload:
    core = Core(
        federation="f", lineage="main", epoch=1, round=1, task="train", kind="update", sender=device, base="",
        suite="plaintext", salt="0" * 32, commitment="", size=4 * CHUNK_BYTES, chunk_size=CHUNK_BYTES,
        chunks=tuple(hashlib.sha256(c).hexdigest() for c in CHUNKS), meta="{}",
    )  # fmt: skip
    return Upload(device, device * 32, PHASE, Report(), Incoming(core, sealer(core, b""), folder / device))


class Wants(list[tuple[str, Ranges]]):
    def __call__(self, upload: Upload, ranges: Ranges) -> None:
        self.append((upload.device, ranges))


def test_only_so_many_devices_are_asked_at_a_time(tmp_path: Path) -> None:
    wants = Wants()
    uploads = Uploads(2, wants)
    for device in "abc":
        uploads.offer(upload(tmp_path, device), 0.0)
    assert [device for device, _ in wants] == ["a", "b"]
    uploads.remove("a", 1.0)
    assert wants[-1] == ("c", ((0, 4),))


def test_a_gap_is_asked_for_as_soon_as_the_last_chunk_is_in(tmp_path: Path) -> None:
    wants = Wants()
    uploads = Uploads(1, wants)
    one = upload(tmp_path, "a")
    uploads.offer(one, 0.0)
    for index in (0, 2):
        assert not uploads.add(one, index, CHUNKS[index], 0.1)
    assert len(wants) == 1
    assert not uploads.add(one, 3, CHUNKS[3], 0.1)
    assert wants[1:] == [("a", ((1, 2),))]
    assert uploads.add(one, 1, CHUNKS[1], 0.2)


def test_what_was_lost_is_asked_for_again_after_silence_with_growing_pauses(tmp_path: Path) -> None:
    wants = Wants()
    uploads = Uploads(1, wants)
    uploads.offer(upload(tmp_path, "a"), 0.0)
    uploads.tick(REPAIR_S - 0.1)
    assert len(wants) == 1
    uploads.tick(REPAIR_S)
    assert len(wants) == 2
    assert uploads.next_due() == REPAIR_S + 2 * REPAIR_S


def test_a_silent_device_gives_its_place_to_the_next_and_keeps_what_arrived(tmp_path: Path) -> None:
    wants = Wants()
    uploads = Uploads(1, wants)
    silent = upload(tmp_path, "a")
    uploads.offer(silent, 0.0)
    uploads.add(silent, 0, CHUNKS[0], 0.0)
    uploads.offer(upload(tmp_path, "b"), 0.0)
    now = 0.0
    for _ in range(MAX_TRIES + 1):
        now += 1000.0
        uploads.tick(now)
    assert wants[-1][0] == "b"
    uploads.remove("b", now)
    assert wants[-1] == ("a", ((1, 4),))


def test_a_device_that_goes_offline_frees_its_place_at_once(tmp_path: Path) -> None:
    wants = Wants()
    uploads = Uploads(1, wants)
    uploads.offer(upload(tmp_path, "a"), 0.0)
    uploads.offer(upload(tmp_path, "b"), 0.0)
    uploads.park("a", 0.1)
    assert wants[-1][0] == "b"
    assert uploads.of("a") is not None


def test_a_repeated_announcement_is_answered_by_a_want_only_when_one_is_due(tmp_path: Path) -> None:
    wants = Wants()
    uploads = Uploads(1, wants)
    uploads.offer(upload(tmp_path, "a"), 0.0)
    uploads.repeat("a", 0.1)
    assert len(wants) == 1
    uploads.repeat("a", REPAIR_S)
    assert len(wants) == 2
