"""A disk that refuses in mid-round: it is said, nothing accepted is lost, and there is room again later."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.federation import Federation
from helpers.proxy import Proxy
from helpers.scene import ACCEPTED, Scene, Stall

SIZE_MB = 64


@pytest.fixture
def small_disk(federation: Federation, tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB for what the aggregator keeps: its state, its log, its models."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SIZE_MB}m", "floe-test"]
    mounted = subprocess.run(["mount", *options, str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a full disk needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    for place in ("log", "state/aggregator-main", "models/global", "models/devices"):
        (disk / place).mkdir(parents=True)
        (federation.folder / place).parent.mkdir(exist_ok=True)
        (federation.folder / place).symlink_to(disk / place)
    yield disk
    federation.close()
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return path


def test_a_full_disk_is_said_and_when_there_is_room_again_the_models_are_those_of_an_undisturbed_run(
    federation: Federation, small_disk: Path, undisturbed: dict[int, str]
) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        scene = Scene(federation, stall, proxy)
        filler = fill(small_disk)
        stall.released = True
        federation.wait(lambda: "o space left" in scene.aggregator.said(), "a full disk was to be said")
        assert scene.aggregator.running
        filler.unlink()
        scene.go_on(undisturbed)


def test_a_spool_that_refuses_a_transfer_just_when_it_is_complete_gets_it_later_without_a_chunk_sent_again(
    federation: Federation,
) -> None:
    """A file stands where the folder of the first round's updates should be."""
    federation.configure({"rounds": {"count": 1, "devices": 1}})
    spool = federation.folder / "state" / "aggregator-main" / "spool" / "1-1-train"
    spool.parent.mkdir(parents=True)
    spool.touch()
    with Proxy(federation.port) as proxy:
        aggregator = federation.aggregator()
        federation.client("a", port=proxy.port)
        federation.wait(lambda: f"{spool}" in aggregator.said(), "the spool was to refuse")
        assert aggregator.running
        assert federation.query(ACCEPTED, "a", 1) == []
        spool.unlink()
        federation.finish()
    assert len(federation.query(ACCEPTED, "a", 1)) == 1
    sent, _ = proxy.count(upward=True, containing="/main/1/chunk/")
    assert sent.total() == 1
