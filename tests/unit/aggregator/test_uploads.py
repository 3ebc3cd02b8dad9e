"""Who may upload, what is asked for and asked for again: no socket, the clock passed in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from helpers.wire import ANN

from aggregator.uploads import MAX_TRIES, REPAIR_S, Upload, Uploads
from floe.messages import Core, Envelope, Manifest, Phase
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
    incoming = Incoming(core, sealer(core, b""), folder / device)
    incoming.resume()
    envelope = Envelope(to="main", wrap="none", key="")
    manifest = Manifest(federation="f", sender=device, key=ANN.key, proof="", seq=1, core=core, envelope=envelope)
    return Upload(device, manifest, device * 32, PHASE, Report(), incoming)


class Line:
    """Uploads with a folder for chunks, and the wants that were published."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.wants: list[tuple[str, Ranges]] = []
        self.begun: list[str] = []
        self.gone: set[str] = set()
        self.uploads = Uploads(slots, lambda device: self._begin(folder, device), self._want)

    def offer(self, *devices: str) -> None:
        for device in devices:
            self.uploads.offer(device, device * 32, PHASE, 0.0)

    def chunk(self, device: str, index: int, now: float = 0.0) -> bool:
        active = self.uploads.get(device)
        assert active is not None
        return self.uploads.add(active, index, CHUNKS[index], now)

    def _begin(self, folder: Path, device: str) -> Upload | None:
        self.begun.append(device)
        return None if device in self.gone else upload(folder, device)

    def _want(self, upload: Upload, ranges: Ranges) -> None:
        self.wants.append((upload.device, ranges))


def test_only_so_many_devices_are_asked_at_a_time(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=2)
    line.offer("a", "b", "c")
    assert [device for device, _ in line.wants] == ["a", "b"]
    line.uploads.remove("a", 1.0)
    assert line.wants[-1] == ("c", ((0, 4),))


def test_nothing_is_kept_of_those_that_wait_but_their_names(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a", "b", "c")
    assert line.begun == ["a"]
    assert line.uploads.transfer_of("c") == "c" * 32
    assert line.uploads.get("c") is None


def test_a_turn_that_comes_to_nothing_goes_to_the_next(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.gone = {"b"}
    line.offer("a", "b", "c")
    line.uploads.remove("a", 1.0)
    assert line.wants[-1][0] == "c"
    assert line.uploads.transfer_of("b") is None


def test_a_gap_is_asked_for_as_soon_as_the_last_chunk_is_in(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a")
    for index in (0, 2):
        assert not line.chunk("a", index)
    assert len(line.wants) == 1
    assert not line.chunk("a", 3)
    assert line.wants[1:] == [("a", ((1, 2),))]
    assert line.chunk("a", 1)


def test_who_waits_is_who_has_announced_and_has_no_turn(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a", "b")
    assert [device for device in "abc" if line.uploads.waits(device)] == ["b"]
    line.uploads.remove("a", 1.0)
    assert not line.uploads.waits("b"), "its turn has come: what it announces now is looked at"


def test_what_was_lost_is_asked_for_again_after_silence_with_growing_pauses(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a")
    line.uploads.tick(REPAIR_S - 0.1)
    assert len(line.wants) == 1
    line.uploads.tick(REPAIR_S)
    assert len(line.wants) == 2
    assert line.uploads.next_due() == REPAIR_S + 2 * REPAIR_S


def test_a_silent_device_gives_its_place_to_the_next_and_keeps_what_arrived(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a", "b")
    line.chunk("a", 0)
    now = 0.0
    for _ in range(MAX_TRIES + 1):
        now += 1000.0
        line.uploads.tick(now)
    assert line.wants[-1][0] == "b"
    line.uploads.remove("b", now)
    assert line.wants[-1] == ("a", ((1, 4),))


def test_a_device_that_goes_offline_frees_its_place_at_once(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a", "b")
    line.uploads.park("a", 0.1)
    assert line.wants[-1][0] == "b"
    assert line.uploads.transfer_of("a") is not None


def test_a_repeated_announcement_is_answered_by_a_want_only_when_one_is_due(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a")
    line.uploads.repeat("a", 0.1)
    assert len(line.wants) == 1
    line.uploads.repeat("a", REPAIR_S)
    assert len(line.wants) == 2


def test_an_upload_that_is_all_there_is_given_out_until_it_is_removed(tmp_path: Path) -> None:
    line = Line(tmp_path, slots=1)
    line.offer("a")
    for index in range(4):
        line.chunk("a", index)
    line.uploads.tick(100.0)  # the disk refused what came after the last chunk: nothing to ask for
    assert [u.device for u in line.uploads.complete(100.0)] == ["a"]
    assert len(line.wants) == 1
    line.uploads.remove("a", 100.0)
    assert line.uploads.complete(100.0) == []
