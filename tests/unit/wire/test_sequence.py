"""Sequence numbers grow, whatever ends the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from floe.errors import StoreError
from floe.sequence import SESSION, Sequence


def test_numbers_grow_within_a_process_and_over_restarts(tmp_path: Path) -> None:
    found = []
    for _ in range(3):
        sequence = Sequence(tmp_path / "s")
        found += [sequence.next(), sequence.next()]
    assert found == sorted(set(found))


def test_the_will_outranks_its_session_and_not_the_next(tmp_path: Path) -> None:
    sequence = Sequence(tmp_path / "s")
    before, will = sequence.next(), sequence.last()
    sequence.renew()
    assert before < will < sequence.next()


def test_the_first_session_begins_after_zero_and_fits_the_numbers_of_json(tmp_path: Path) -> None:
    sequence = Sequence(tmp_path / "s")
    assert sequence.next() == SESSION + 1
    (tmp_path / "s").write_text(str(2**21 - 2))
    assert Sequence(tmp_path / "s").last() == 2**53 - 1


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "2097151", "9" * 5000])
def test_a_damaged_file_is_named_and_not_taken_for_the_beginning(tmp_path: Path, text: str) -> None:
    (tmp_path / "s").write_text(text)
    with pytest.raises(StoreError, match=r"s: not a sequence number; .* Remove it only if this state folder is new"):
        Sequence(tmp_path / "s")


def test_what_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(StoreError, match="s: cannot be read: Is a directory"):
        Sequence(tmp_path / "s")


def test_a_session_that_cannot_be_kept_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / ".s.part").mkdir()
    with pytest.raises(StoreError, match="nothing was replaced"):
        Sequence(tmp_path / "s")


def test_a_sequence_goes_on_above_what_the_world_has_seen_of_it(tmp_path: Path) -> None:
    sequence = Sequence(tmp_path / "sequence")
    seen = sequence.next() + 5 * SESSION
    assert sequence.outrank(seen)
    assert sequence.next() > seen
    assert not sequence.outrank(seen)
    assert Sequence(tmp_path / "sequence").next() > seen
