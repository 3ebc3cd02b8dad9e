"""Files are whole or as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from floe.errors import Refused, StoreError
from floe.files import replacing, storing, write_atomically


def _fail(path: Path, error: Exception) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise error


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("x"), Refused("weights", "x"), KeyError("x")])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")
    with pytest.raises(type(error)):
        _fail(path, error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_store_error_that_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")
    with pytest.raises(StoreError, match="f: No space left on device; nothing was replaced"):
        _fail(path, OSError(28, "No space left on device"))
    assert path.read_bytes() == b"old"


def test_the_new_content_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="below"):
        write_atomically(tmp_path / "file" / "below", b"x")


def test_storing_keeps_what_is_no_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), storing(tmp_path):
        raise ValueError("mine")
