"""The list of operators: what is written, what is read, what is told of a line that does not read."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.wire import ANN, EVE

from floe.errors import KeyFileError
from floe.operators import Operators, known_operators, load_operator, new_operator, read_operators


def test_a_new_operator_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    known = tmp_path / "operators.pub"
    known.write_text(f"ann {ANN.key}")
    new_operator("bob", tmp_path / "bob.pem", known)
    new_operator("cy", tmp_path / "cy.pem", known)
    assert [name for name, _ in known_operators(known)] == ["ann", "bob", "cy"]
    assert known.read_text().count("\n") == 3
    assert load_operator(tmp_path / "bob.pem", known).name == "bob"


def test_a_list_begins_without_an_empty_line(tmp_path: Path) -> None:
    known = tmp_path / "operators.pub"
    new_operator("bob", tmp_path / "bob.pem", known)
    assert known.read_text().startswith("bob ")


def test_of_two_names_of_one_key_the_first_counts(tmp_path: Path) -> None:
    known = tmp_path / "operators.pub"
    new_operator("bob", tmp_path / "bob.pem", known)
    key = known_operators(known)[0][1]
    names = [f"n{number}" for number in range(20)]
    known.write_text("".join(f"{name} {key}\n" for name in names))
    assert load_operator(tmp_path / "bob.pem", known).name == "n0"


@pytest.mark.parametrize(
    "line", ["broken", f"{ANN.key} ann", f"Ann {ANN.key}", f"ann {ANN.key[:-1]}", f"ann {ANN.key} x", "ann a+b="]
)
def test_a_line_that_is_none_is_named_with_file_and_number(line: str, tmp_path: Path) -> None:
    known = tmp_path / "operators.pub"
    known.write_text(f"# operators\neve {EVE.key}\n{line}\n")
    private = tmp_path / "bob.pem"
    for call in (lambda: known_operators(known), lambda: new_operator("bob", private, known)):
        with pytest.raises(KeyFileError, match=r"operators\.pub, line 3: not `name key`"):
            call()
    assert not private.exists(), "no key without its line"
    assert read_operators(known).known == (("eve", EVE.key),)


def test_a_list_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    known = tmp_path / "operators.pub"
    assert read_operators(known) == Operators()
    known.mkdir()
    with pytest.raises(KeyFileError, match="cannot be read"):
        known_operators(known)


def test_comments_empty_lines_and_a_byte_order_mark_are_no_lines(tmp_path: Path) -> None:
    known = tmp_path / "operators.pub"
    known.write_text(f"\ufeffann {ANN.key}  # since spring\n\n   # none\n", encoding="utf-8")
    assert known_operators(known) == (("ann", ANN.key),)
