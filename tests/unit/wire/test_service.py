"""The lock on a state folder: what stands in its way is named, with the way out."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from floe.errors import StoreError
from floe.service import is_running, log, only_one, overhearing


def _told(state: Path) -> str:
    with pytest.raises(StoreError) as told, only_one(state, "device"):
        pass
    assert "[paths] state" in str(told.value)
    return str(told.value)


def test_the_second_with_one_state_folder_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with only_one(tmp_path, "device"), pytest.raises(StoreError, match="another device is running"):
        only_one(tmp_path, "device").__enter__()
    with only_one(tmp_path, "device"):
        pass


@pytest.mark.parametrize("below", ["", "device-a", "deep/device-a"])
def test_a_file_where_a_folder_is_to_be_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "state").touch()
    assert _told(tmp_path / "state" / below).startswith(f"{tmp_path / 'state'}: not a folder")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "unmounted")
    assert _told(tmp_path / "state").startswith(f"{tmp_path / 'state'}: not a folder")


def test_a_folder_where_the_lock_is_to_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    assert _told(tmp_path).startswith(f"{tmp_path / 'lock'}: a folder")


def test_what_is_logged_is_overheard_as_it_is_printed_and_only_during_the_block(
    capsys: pytest.CaptureFixture[str],
) -> None:
    heard: list[str] = []
    with overhearing(heard.append):
        log("a \x1b[2J line")
    log("after")
    assert heard == ["a \\x1b[2J line"]
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == ["a \\x1b[2J line", "after"]


def test_who_only_looks_at_the_lock_does_not_keep_a_process_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with only_one(tmp_path, "aggregator"):
            assert is_running(tmp_path)
