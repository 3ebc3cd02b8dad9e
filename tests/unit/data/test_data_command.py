"""`floe prepare` and `floe data` as a user types them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from data_helpers import same

from edge_client.data import document, folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from edge_client.data.load import load
from edge_client.data.partition import WAYS
from edge_client.data.sources import source
from edge_client.data.split import split
from floe.cli import floe
from floe.errors import DataError


def run(*words: object) -> Result:
    return CliRunner().invoke(floe, [str(word) for word in words])


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    rows = [f"{i},{'ab'[i % 2]},{i % 7},{int(i % 4 == 0)}" for i in range(40)]
    (tmp_path / "d.csv").write_text("id,kind,v,y\n" + "\n".join(rows))
    return tmp_path / "d.csv"


def test_prepare_writes_a_folder_and_names_what_it_dropped(csv: Path, tmp_path: Path) -> None:
    words = ("prepare", csv, "--client", "insurance", "--label", "y", "--normal", "0", "--out", tmp_path / "f")
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "dropped id: identifier" in result.output
    assert "train 0: 24, 1: 8; test 0: 6, 1: 2" in result.output
    names = ("kind=a", "kind=b", "kind=other", "v")
    assert load("f/insurance", {}, tmp_path).schema.features == names
    files = {path.name: path.read_bytes() for path in (tmp_path / "f" / "insurance").iterdir()}
    assert run(*words).exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "f" / "insurance").iterdir()} == files


def test_prepare_follows_a_federations_schema(csv: Path, tmp_path: Path) -> None:
    run("prepare", csv, "--client", "one", "--label", "y", "--drop", "id", "--log", "v", "--out", tmp_path)
    result = run("prepare", csv, "--client", "two", "--schema", tmp_path / "one" / "schema.json", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert same(load("one", {}, tmp_path), load("two", {}, tmp_path))


def words_for(csv: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("prepare", csv, "--client", "one", "--label", "y", "--out", out, *more)


@pytest.mark.parametrize("more", [("--seed", 1), ("--test", 0.3), ("--drop", "v"), ("--normal", "1"), ("--log", "v")])
def test_features_made_with_other_flags_are_replaced_only_by_force(
    csv: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    assert run(*words_for(csv, tmp_path)).exit_code == 0
    before = load("one", {}, tmp_path)
    result = run(*words_for(csv, tmp_path, *more))
    assert isinstance(result.exception, DataError)
    assert f"{tmp_path / 'one'}: holds features made from another source" in str(result.exception)
    assert "--force" in str(result.exception)
    assert same(load("one", {}, tmp_path), before)
    assert run(*words_for(csv, tmp_path, *more, "--force")).exit_code == 0
    assert not same(load("one", {}, tmp_path), before)
    assert run(*words_for(csv, tmp_path, *more)).exit_code == 0


def test_features_of_another_source_are_replaced_only_by_force(csv: Path, tmp_path: Path) -> None:
    assert run(*words_for(csv, tmp_path)).exit_code == 0
    csv.write_text(csv.read_text().replace("39,b,4,0", "39,b,5,0"))  # in the test rows or not: other rows
    assert isinstance(run(*words_for(csv, tmp_path)).exception, DataError)
    assert run(*words_for(csv, tmp_path, "--force")).exit_code == 0


@pytest.mark.parametrize("name", ["train_x.npy", "schema.json"])
def test_features_that_say_nothing_of_their_source_are_replaced_only_by_force(
    csv: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / name).write_text("mine")
    assert isinstance(run(*words_for(csv, tmp_path)).exception, DataError)
    assert (tmp_path / "one" / name).read_text() == "mine"
    (tmp_path / "one" / name).rename(tmp_path / "one" / "notes.txt")
    assert run(*words_for(csv, tmp_path)).exit_code == 0


def test_of_many_dropped_columns_and_notes_twenty_are_printed(tmp_path: Path) -> None:
    lines = [",".join([*(["c"] * 50), *([str(i * i % 41)] * 30), str(i % 2)]) for i in range(10)]
    header = ",".join([*(f"same{j}" for j in range(50)), *(f"v{j}" for j in range(30)), "y"])
    (tmp_path / "d.csv").write_text("\n".join([header, *lines]))
    result = run(*words_for(tmp_path / "d.csv", tmp_path))
    printed = result.output.splitlines()
    assert [line for line in printed if " more" in line] == ["dropped and 30 more", "note    and 10 more"]
    assert sum(line.startswith("dropped same") for line in printed) == 20
    assert len(document.read(tmp_path / "one" / "schema.json").dropped) == 50


@pytest.mark.parametrize("source", ["", " "])
def test_split_wants_data(tmp_path: Path, source: str) -> None:
    result = run("data", "split", "--data", source, "--clients", 2, "--out", tmp_path / "s")
    assert isinstance(result.exception, DataError)
    assert f"--data {source!r}: one of breast-cancer, digits" in str(result.exception)


@pytest.mark.parametrize("client", ["", "a/b", "Upper", "..", "x\n", "a" * 65])
def test_a_client_name_that_is_no_topic_level_is_refused(csv: Path, tmp_path: Path, client: str) -> None:
    result = run("prepare", csv, "--client", client, "--label", "y", "--out", tmp_path / "f")
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("how", list(WAYS))
def test_split_writes_folders_that_load_equal(tmp_path: Path, how: str) -> None:
    result = run("data", "split", "--data", "breast-cancer", "--clients", 3, "--partition", how, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for number, part in enumerate(split(source("breast-cancer", 0), 3, how, 0.5, 0), 1):
        assert same(load(f"device-{number}", {}, tmp_path), part)
        assert len(np.unique(part.test_y)) == 2
        assert f"device-{number}" in result.output
        origin = document.read(tmp_path / f"device-{number}" / "schema.json").origin
        assert (origin["partition"], origin["data"]) == (how, "breast-cancer")
        assert origin.get("alpha") == (0.5 if how in ("dirichlet", "quantity") else None)


def test_split_of_a_prepared_folder_keeps_its_names(csv: Path, tmp_path: Path) -> None:
    run("prepare", csv, "--client", "all", "--label", "y", "--out", tmp_path)
    result = run("data", "split", "--data", tmp_path / "all", "--clients", 2, "--out", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert load("s/device-2", {}, tmp_path).schema == load("all", {}, tmp_path).schema


def test_rows_caps_the_rows_of_all_devices_together(tmp_path: Path) -> None:
    result = run("data", "split", "--data", "digits", "--clients", 2, "--rows", 100, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    parts = [load(f"device-{number}", {}, tmp_path) for number in (1, 2)]
    assert [len(part.train_y) for part in parts] == [50, 50]
    assert sum(len(part.test_y) for part in parts) == 25


def test_devices_of_another_split_are_not_left_beside_the_new_ones(tmp_path: Path) -> None:
    run("data", "split", "--data", "synthetic", "--clients", 3, "--out", tmp_path)
    result = run("data", "split", "--data", "synthetic", "--clients", 2, "--out", tmp_path)
    assert isinstance(result.exception, DataError)
    assert "holds device-3" in str(result.exception)


def synthetic(out: Path, *more: object) -> Result:
    return run("data", "split", "--data", "synthetic", "--clients", 2, "--out", out, *more)


def test_devices_of_the_same_names_are_replaced_only_by_force(tmp_path: Path) -> None:
    assert synthetic(tmp_path).exit_code == 0
    before = load("device-2", {}, tmp_path)
    result = synthetic(tmp_path, "--seed", 1)
    assert isinstance(result.exception, DataError)
    assert f"{tmp_path / 'device-1'}: holds features made from another source" in str(result.exception)
    assert same(load("device-2", {}, tmp_path), before)
    assert synthetic(tmp_path).exit_code == 0  # the same data and flags may come again
    assert synthetic(tmp_path, "--seed", 1, "--force").exit_code == 0
    assert not same(load("device-2", {}, tmp_path), before)


def test_data_of_the_same_name_is_told_apart_by_what_is_in_it(small: Features, tmp_path: Path) -> None:
    for name, sign in (("a", 1), ("b", -1)):
        folder.write(
            tmp_path / name / "data", replace(small, train_x=sign * small.train_x), Document(schema=small.schema)
        )
    words = ("data", "split", "--clients", 1, "--out", tmp_path / "out", "--data")
    assert run(*words, tmp_path / "a" / "data").exit_code == 0
    assert isinstance(run(*words, tmp_path / "b" / "data").exception, DataError)


@pytest.mark.parametrize(("words", "message"), [
    (("--alpha", 0.5), "--alpha 0.5: iid does not use it"),
    (("--partition", "quantity", "--alpha", 0), "alpha from 0.001"),
    (("--partition", "column"), "by which"),
    (("--partition", "column", "--by", "x99"), "no such column; there are: x0, x1"),
    (("--partition", "natural"), "--clients: natural does not use it"),
    (("--rows", 12), "12 rows over 2 clients .iid. leave one with 6"),
])  # fmt: skip
def test_a_split_that_cannot_be_writes_nothing(tmp_path: Path, words: tuple[object, ...], message: str) -> None:
    result = synthetic(tmp_path / "out", *words)
    assert isinstance(result.exception, DataError)
    assert re.search(message, str(result.exception))
    assert not (tmp_path / "out").exists()


def test_a_split_by_a_column_of_the_csv_says_what_each_device_holds(csv: Path, tmp_path: Path) -> None:
    run("prepare", csv, "--client", "all", "--label", "y", "--out", tmp_path)
    words = ("data", "split", "--data", tmp_path / "all", "--partition", "column", "--by", "kind", "--out", tmp_path)
    result = run(*words, "--clients", 2)
    assert result.exit_code == 0, result.output
    documents = [document.read(tmp_path / f"device-{number}" / "schema.json") for number in (1, 2)]
    assert sorted(str(found.origin["holds"]) for found in documents) == ["a", "b"]
    assert documents[0].columns == document.read(tmp_path / "all" / "schema.json").columns
    too_many = run(*words, "--clients", 3).exception
    assert "2 different values for 3 clients" in str(too_many)


def test_fetch_asks_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOE_DATA", raising=False)
    result = run("data", "fetch", "mnist", "--url", "http://127.0.0.1:1")
    assert isinstance(result.exception, DataError)
    assert "--out FOLDER, or set FLOE_DATA" in str(result.exception)


def test_fetch_does_nothing_when_the_files_are_there(data_folder: Path) -> None:
    result = run("data", "fetch", "mnist", "--url", "http://127.0.0.1:1", "--out", data_folder)
    assert result.exit_code == 0, result.output
    assert "is there already" in result.output


def test_a_split_does_not_go_into_the_data_that_it_divides(csv: Path, tmp_path: Path) -> None:
    assert run(*words_for(csv, tmp_path)).exit_code == 0
    result = run("data", "split", "--data", tmp_path / "one", "--clients", 2, "--out", tmp_path / "one" / "parts")
    assert isinstance(result.exception, DataError)
    assert "choose a folder beside it" in str(result.exception)
    assert not (tmp_path / "one" / "parts").exists()
