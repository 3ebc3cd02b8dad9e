"""A device's keys, and the change to the next ones, killed between every two steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_client import check, keys
from edge_client.keys import have_keys, load_keys, load_next, take_next
from floe.errors import KeyFileError, StoreError
from floe.findings import Findings
from floe.settings import Config


def public(state: Path) -> str:
    return load_keys(state, "ann").identity.key


def test_keys_are_made_once_in_a_folder_of_their_own(tmp_path: Path) -> None:
    state = tmp_path / "device-ann"
    first = load_keys(state, "ann", "rsa-2048-pss")
    again = load_keys(state, "ann")
    assert again.public(("aes-256-gcm",)) == first.public(("aes-256-gcm",))
    folder = state / "keys"
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, *folder.iterdir())] == ["0o700", "0o600", "0o600"]
    folder.chmod(0o750)
    with pytest.raises(KeyFileError, match="mode 0750 lets others in"):
        load_keys(state, "ann")


def test_next_keys_wait_beside_those_in_use(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no keys that follow"):
        load_next(tmp_path, "ann", make=False)
    before, following = public(tmp_path), load_next(tmp_path, "ann").identity.key
    assert load_next(tmp_path, "ann", make=False).identity.key == following
    assert public(tmp_path) == before != following
    take_next(tmp_path)
    assert public(tmp_path) == following
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys"]


class Killed(BaseException):
    pass


def _killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """The process dies instead of its nth change of a folder, and half through what removes one."""
    taken: list[str] = []

    def count(name: str) -> None:
        taken.append(name)
        if len(taken) == step:
            raise Killed

    rename, rmtree = Path.rename, shutil.rmtree

    def renaming(self: Path, target: Path) -> Path:
        count(f"rename {self.name}")
        return rename(self, target)

    def removing(path: Path, **more: Any) -> None:
        if path.exists():
            for file in sorted(path.iterdir()):
                count(f"remove {file.name}")
                file.unlink()
            count(f"remove {path.name}")
        rmtree(path, **more)

    monkeypatch.setattr(Path, "rename", renaming)
    monkeypatch.setattr(keys.shutil, "rmtree", removing)
    return taken


@pytest.mark.parametrize("rest", [False, True], ids=["clean", "with a rest of the last time"])
@pytest.mark.parametrize("step", range(1, 10))
def test_a_change_of_keys_that_was_killed_anywhere_leaves_the_old_or_the_new_keys_whole(
    tmp_path: Path, step: int, *, rest: bool
) -> None:
    before, following = public(tmp_path), load_next(tmp_path, "ann").identity.key
    if rest:
        (tmp_path / "keys-old").mkdir()
        (tmp_path / "keys-old" / "ann.pem").write_text("a key of long ago")
    with pytest.MonkeyPatch.context() as patch:
        taken = _killed_at(patch, step)
        try:
            take_next(tmp_path)
        except Killed:
            assert len(taken) == step
    assert have_keys(tmp_path, "ann")
    found = public(tmp_path)
    moved = "rename keys-next" in taken[:-1] or ("rename keys" in taken[: step - 1])
    assert found == (following if moved else before)
    if not moved:
        take_next(tmp_path)
    assert public(tmp_path) == following
    load_keys(tmp_path, "ann")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys"]


@pytest.mark.parametrize("missing", ["ann.pem", "ann.hpke.pem", "keys"])
def test_a_device_that_has_lost_a_key_has_not_its_keys(tmp_path: Path, missing: str) -> None:
    public(tmp_path)
    assert have_keys(tmp_path, "ann")
    path = tmp_path / "keys"
    shutil.rmtree(path) if missing == "keys" else (path / missing).unlink()
    assert not have_keys(tmp_path, "ann")
    assert (tmp_path / "keys" / missing).exists() is False, "none is made in its place"


def test_next_keys_that_are_gone_in_the_middle_of_the_change_are_named(tmp_path: Path) -> None:
    public(tmp_path)
    (tmp_path / "keys").rename(tmp_path / "keys-old")
    with pytest.raises(StoreError, match=str(tmp_path)):
        load_keys(tmp_path, "ann")
    assert (tmp_path / "keys-old" / "ann.pem").exists()


def checked(folder: Path) -> tuple[list[str], list[str]]:
    """What `floe check` finds of the device, and what it notes; it changes no file."""
    before = sorted(str(path) for path in folder.rglob("*"))
    found = Findings()
    check.check(Config(folder=folder), "ann", found)
    assert sorted(str(path) for path in folder.rglob("*")) == before
    damaged = [f"{Path(one.place).name}: {one.what}" for one in found.all if one.level == "damaged"]
    return damaged, [f"{Path(one.place).name}: {one.what}" for one in found.all if one.level == "note"]


def test_a_check_in_the_middle_of_a_change_of_keys_makes_none_and_finds_no_damage(tmp_path: Path) -> None:
    state = tmp_path / "state" / "device-ann"
    public(state)
    load_next(state, "ann")
    (state / "roster.json").write_text("{}")
    (state / "keys").rename(state / "keys-old")
    damaged, notes = checked(tmp_path)
    assert notes == ["keys-old: a change of keys was cut off: the device brings it to its end at its start"]
    assert [line for line in damaged if "roster" not in line] == []
    (state / "keys-old" / "ann.hpke.pem").unlink()
    assert "ann.hpke.pem: missing, but the device is enrolled with it" in checked(tmp_path)[0]
