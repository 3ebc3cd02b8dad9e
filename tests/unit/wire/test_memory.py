"""What a device remembers survives a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.wire import keyring

from edge_client.memory import Memory
from floe.errors import Refused, StoreError
from floe.keyring import Keyring
from floe.messages import Phase, Status

RING = keyring("chacha20-poly1305")
ONE, TWO = Phase("main", 1, 1, "train"), Phase("main", 1, 2, "train")


def _said(key: str, ring: Keyring = RING) -> Status:
    proof = ring.proof("floe", "main", key)
    return Status(federation="floe", sender="main", key=key, proof=proof, seq=1, state="online")


def test_the_first_key_is_pinned_and_another_is_refused_after_a_restart(tmp_path: Path) -> None:
    Memory(tmp_path).check_key(_said("first"), RING)
    again = Memory(tmp_path)
    again.check_key(_said("first"), RING)
    with pytest.raises(Refused, match=r"unknown-key: .* pinned in .*memory\.json"):
        again.check_key(_said("second"), RING)


@pytest.mark.parametrize("ring", [keyring("plaintext"), Keyring("fernet", bytes(32))])
def test_a_key_without_proof_of_the_secret_is_not_pinned(tmp_path: Path, ring: Keyring) -> None:
    with pytest.raises(Refused, match="unknown-key: 'main' does not prove that it knows our secret"):
        Memory(tmp_path).check_key(_said("stranger", ring), RING)
    Memory(tmp_path).check_key(_said("first"), RING)


def test_in_plaintext_the_first_key_is_pinned_and_one_with_a_secret_is_refused(tmp_path: Path) -> None:
    plain = keyring("plaintext")
    with pytest.raises(Refused, match=r"the same secret\.key, or both none"):
        Memory(tmp_path).check_key(_said("sealed"), plain)
    Memory(tmp_path).check_key(_said("first", plain), plain)


def test_an_older_message_is_known_after_a_restart_and_streams_do_not_mix(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.newer("round", 5)
    memory.save()
    again = Memory(tmp_path)
    assert [again.newer("round", seq) for seq in (4, 5, 6, 5)] == [False, True, True, False]
    assert again.newer("model", 1)


def test_an_answered_phase_is_not_done_again_after_a_restart(tmp_path: Path) -> None:
    Memory(tmp_path).remember_answer(ONE)
    assert Memory(tmp_path).answered(ONE)
    assert not Memory(tmp_path).answered(TWO)


def test_tasks_of_one_round_are_remembered_together(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    sums, init = Phase("main", 1, 0, "sums"), Phase("main", 1, 0, "init")
    memory.remember_answer(sums)
    memory.remember_answer(init)
    assert memory.answered(sums)
    assert memory.answered(init)


def test_a_late_answer_for_an_old_round_does_not_replace_the_newest(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.remember_answer(TWO)
    memory.remember_answer(ONE)
    assert memory.answered(TWO)


def test_in_a_new_epoch_of_the_roster_the_aggregator_counts_anew_and_never_in_an_older_one(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.follow(1)
    assert memory.newer("round", 9)
    memory.save()
    memory.follow(1)
    assert not memory.newer("round", 8)
    memory.follow(2)
    again = Memory(tmp_path)
    assert again.newer("round", 3)
    again.save()
    for epoch in (1, 2):
        again.follow(epoch)
        assert not again.newer("round", 2)
    assert again.newer("round", 4)


def test_what_was_answered_stays_so_in_a_new_epoch(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.remember_answer(ONE)
    memory.follow(2)
    assert Memory(tmp_path).answered(ONE)


def test_the_file_does_not_grow_with_the_rounds(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for number in range(1, 50):
        memory.remember_answer(Phase("main", 1, number, "train"))
    assert (tmp_path / "memory.json").stat().st_size < 300


def _other_digit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":2'))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text(""),
        lambda path: path.write_text("{}"),
        lambda path: path.write_bytes(bytes(range(256))),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        _other_digit,
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to(path)),
    ],
    ids=["cut", "empty", "an object", "random", "truncated", "another digit", "a folder", "unreadable"],
)
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    Memory(tmp_path).remember_answer(ONE)
    path = tmp_path / "memory.json"
    damage(path)
    before = path.lstat().st_ino, path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=r"memory\.json: damaged .*restore it, or remove it to begin anew"):
        Memory(tmp_path)
    assert (path.lstat().st_ino, path.read_bytes() if path.is_file() else b"") == before
