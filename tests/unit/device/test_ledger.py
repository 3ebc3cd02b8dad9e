"""The account of an example's privacy: kept over ends of the process, counted once, and never begun anew in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge_client.ledger import Ledger, Spent
from floe.errors import KeyFileError, StoreError

ONE = Spent(1.0, 0.1, 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "privacy"


def test_nothing_is_written_before_something_is_spent(folder: Path) -> None:
    Ledger(folder).after("a", ONE)
    assert not folder.exists()


def test_what_is_booked_is_there_after_the_end_of_the_process(folder: Path) -> None:
    Ledger(folder).book("a", ONE, "plan")
    again = Ledger(folder)
    assert again.after("b", ONE) == [Spent(1.0, 0.1, 20)]
    assert again.noise("plan") == 1.0


def test_the_same_work_again_is_not_counted_again(folder: Path) -> None:
    Ledger(folder).book("a", ONE, "plan")
    again = Ledger(folder)
    assert again.after("a", ONE) == [ONE]
    before = (folder / "ledger.json").read_bytes()
    again.book("a", ONE, "plan")
    assert (folder / "ledger.json").read_bytes() == before


def test_work_with_other_noise_or_other_sampling_stands_beside_what_was_before(folder: Path) -> None:
    ledger = Ledger(folder)
    for name, spent in (("a", ONE), ("b", Spent(2.0, 0.1, 5)), ("c", Spent(2.0, 0.2, 5)), ("d", Spent(2.0, 0.2, 1))):
        ledger.book(name, spent, name)
    assert Ledger(folder).after("d", ONE) == [ONE, Spent(2.0, 0.1, 5), Spent(2.0, 0.2, 6)]


def test_the_noise_is_this_devices_own_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    ledger = Ledger(folder)
    keys = {ledger.key_of(work) for work in "abc"}
    ledger.book("a", ONE, "plan")
    assert {Ledger(folder).key_of(work) for work in "abc"} == keys
    assert len(keys | {Ledger(tmp_path / "other").key_of(work) for work in "abc"}) == 6
    assert {len(key) for key in keys} == {16}


def test_the_key_of_the_noise_is_its_owners_alone(folder: Path) -> None:
    Ledger(folder).book("a", ONE, "plan")
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o755)
    with pytest.raises(KeyFileError, match="lets others in"):
        Ledger(folder)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"check":"","kept":{"key":"00"}}'])
def test_a_damaged_account_stops_the_device_and_does_not_begin_at_zero(folder: Path, damage: bytes) -> None:
    Ledger(folder).book("a", ONE, "plan")
    (folder / "ledger.json").write_bytes(damage)
    with pytest.raises(StoreError, match=r"ledger.json: damaged .*restore it from a backup"):
        Ledger(folder)


def test_an_account_that_somebody_has_lowered_is_damaged(folder: Path) -> None:
    Ledger(folder).book("a", ONE, "plan")
    file = json.loads((folder / "ledger.json").read_text())
    file["kept"]["history"][0][2] = 1
    (folder / "ledger.json").write_text(json.dumps(file))
    with pytest.raises(StoreError, match="not as it was written"):
        Ledger(folder)


def test_what_cannot_be_written_is_not_spent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(folder)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            ledger.book("a", ONE, "plan")
    assert ledger.after("b", ONE) == [ONE]
    assert Ledger(folder).after("b", ONE) == [ONE]
