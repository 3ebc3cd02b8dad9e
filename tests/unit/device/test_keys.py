"""A member's keys, and the change to the next ones, killed between every two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.killed import Killed, killed_at

from edge_client import check
from floe.errors import KeyFileError
from floe.findings import Findings
from floe.own_keys import has_next, have_keys, load_keys, load_next, take_next, was_cut_off
from floe.settings import Config

FILES = ("ann.pem", "ann.hpke.pem")


def public(state: Path) -> tuple[str, bytes]:
    """Of both keys in use."""
    keys = load_keys(state, "ann")
    return keys.identity.key, keys.sealing.public_key().public_bytes_raw()


def following(state: Path) -> tuple[str, bytes]:
    keys = load_next(state, "ann")
    return keys.identity.key, keys.sealing.public_key().public_bytes_raw()


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
    before = public(tmp_path)
    assert not has_next(tmp_path, "ann")
    new = following(tmp_path)
    assert has_next(tmp_path, "ann")
    assert following(tmp_path) == new
    assert public(tmp_path) == before
    assert not set(before) & set(new)
    take_next(tmp_path, "ann")
    assert public(tmp_path) == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys"]


@pytest.mark.parametrize("step", range(1, 6))
def test_a_change_of_keys_that_was_killed_anywhere_leaves_the_old_or_the_new_keys_whole(
    tmp_path: Path, step: int
) -> None:
    before, new = public(tmp_path), following(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        taken = killed_at(patch, step)
        try:
            take_next(tmp_path, "ann")
        except Killed:
            assert len(taken) >= step
    assert have_keys(tmp_path, "ann")
    assert public(tmp_path) == (before if step == 1 else new)
    if step == 1:
        take_next(tmp_path, "ann")
    assert public(tmp_path) == new
    assert not has_next(tmp_path, "ann")
    again = following(tmp_path)
    take_next(tmp_path, "ann")
    assert public(tmp_path) == again


@pytest.mark.parametrize("step", range(1, 8))
def test_next_keys_whose_making_was_killed_anywhere_are_made_and_taken_later(tmp_path: Path, step: int) -> None:
    before = public(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        taken = killed_at(patch, step)
        try:
            following(tmp_path)
        except Killed:
            assert len(taken) >= step
    assert public(tmp_path) == before
    new = following(tmp_path)
    take_next(tmp_path, "ann")
    assert public(tmp_path) == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys"], "what the dead process left is gone too"


@pytest.mark.parametrize("missing", FILES)
def test_a_device_that_has_lost_a_key_has_not_its_keys(tmp_path: Path, missing: str) -> None:
    public(tmp_path)
    assert have_keys(tmp_path, "ann")
    path = tmp_path / "keys" / missing
    path.unlink()
    assert not have_keys(tmp_path, "ann")
    assert not path.exists(), "none is made in its place"


def test_without_a_folder_there_are_no_keys_and_none_are_made(tmp_path: Path) -> None:
    assert not have_keys(tmp_path, "ann")
    assert not was_cut_off(tmp_path, "ann")
    assert list(tmp_path.iterdir()) == []


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
    following(state)
    (state / "roster.json").write_text("{}")
    (state / "keys-next" / "ann.pem").replace(state / "keys" / "ann.pem")
    damaged, notes = checked(tmp_path)
    assert notes == ["keys-next: a change of keys was cut off: the device brings it to its end at its start"]
    assert [line for line in damaged if "roster" not in line] == []


def test_a_check_of_an_enrolled_device_names_a_key_that_is_missing_and_makes_none(tmp_path: Path) -> None:
    state = tmp_path / "state" / "device-ann"
    public(state)
    (state / "roster.json").write_text("{}")
    (state / "keys" / "ann.hpke.pem").unlink()
    assert "ann.hpke.pem: missing, but the device is enrolled with it" in checked(tmp_path)[0]
