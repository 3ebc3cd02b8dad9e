"""`federation.pub`: where it lies devices are enrolled, and a state folder that was stays so."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.damage import DAMAGE
from helpers.wire import ANN, EVE

from floe.anchor import load_anchor, read_anchor, write_anchor
from floe.errors import KeyFileError
from floe.roster import Anchor
from floe.settings import Config, Federation

OURS = Anchor("floe", ANN.key)


def config(folder: Path, name: str = "floe") -> Config:
    return Config(folder=folder, federation=Federation(name=name))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a member of `OURS`, that has run once."""
    write_anchor(tmp_path / "federation.pub", OURS)
    found = tmp_path / "state" / "device-ann"
    found.mkdir(parents=True)
    assert load_anchor(config(tmp_path), found) == OURS
    return found


def test_without_the_file_there_is_no_enrolment_and_no_witness(tmp_path: Path) -> None:
    assert load_anchor(config(tmp_path), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_one_line_that_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "federation.pub"
    write_anchor(path, OURS)
    assert path.read_text() == f"floe {ANN.key}\n"
    write_anchor(path, OURS)
    for other in (Anchor("floe", EVE.key), Anchor("other", ANN.key)):
        with pytest.raises(KeyFileError, match="belongs to another federation, 'floe'"):
            write_anchor(path, other)
    assert read_anchor(path) == OURS


def test_a_state_folder_that_was_enrolled_does_not_go_on_without(tmp_path: Path, state: Path) -> None:
    assert load_anchor(config(tmp_path), state) == OURS
    (tmp_path / "federation.pub").unlink()
    with pytest.raises(KeyFileError, match=r"federation\.pub: missing, .* remove .*/enrolled"):
        load_anchor(config(tmp_path), state)
    assert load_anchor(config(tmp_path), tmp_path / "other") is None
    (state / "enrolled").unlink()
    assert load_anchor(config(tmp_path), state) is None


def test_a_configuration_of_another_federation_is_named(tmp_path: Path, state: Path) -> None:
    with pytest.raises(KeyFileError, match=r"of federation 'floe', but \[federation\] name = 'mill'"):
        load_anchor(config(tmp_path, "mill"), state)


def test_another_root_in_the_same_place_is_named(tmp_path: Path, state: Path) -> None:
    (tmp_path / "federation.pub").write_text(f"floe {EVE.key}\n")
    with pytest.raises(KeyFileError, match=r"another root than before, by .*/enrolled: restore it, or begin anew"):
        load_anchor(config(tmp_path), state)


@pytest.mark.parametrize(
    "text",
    ["", "floe", f"floe {ANN.key} more", f"FLOE {ANN.key}", f"floe {ANN.key[:-1]}", f"floe {ANN.key}A", "floe !!!",
     f"{ANN.key} floe", "floe " + "A" * 392],
)  # fmt: skip
def test_what_is_no_name_and_key_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "federation.pub").write_text(text)
    with pytest.raises(KeyFileError, match=r"federation\.pub: not `name key` of a federation; restore it"):
        load_anchor(config(tmp_path), tmp_path)


@pytest.mark.parametrize("damage", ["random", "folder", "unreadable"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, state: Path, damage: str) -> None:
    DAMAGE[damage](tmp_path / "federation.pub")
    with pytest.raises(KeyFileError, match=r"federation\.pub: cannot be read: .*; restore it: it is public"):
        load_anchor(config(tmp_path), state)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_witness_is_named_with_or_without_the_file(tmp_path: Path, state: Path, damage: str) -> None:
    DAMAGE[damage](state / "enrolled")
    said = "another root than before, by" if damage == "flipped" else "damaged: .*; remove it: it is written again"
    with pytest.raises(KeyFileError, match=said) as error:
        load_anchor(config(tmp_path), state)
    assert str(state / "enrolled") in str(error.value)
    (tmp_path / "federation.pub").unlink()
    with pytest.raises(KeyFileError, match="missing"):
        load_anchor(config(tmp_path), state)


def test_a_witness_that_was_removed_is_written_again(tmp_path: Path, state: Path) -> None:
    (state / "enrolled").unlink()
    (state / "enrolled").symlink_to("nowhere")
    with pytest.raises(KeyFileError, match="remove it"):
        load_anchor(config(tmp_path), state)
    (state / "enrolled").unlink()
    assert load_anchor(config(tmp_path), state) == OURS
    assert read_anchor(state / "enrolled") == OURS
