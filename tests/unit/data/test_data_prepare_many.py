"""Several CSVs, a client each, with one schema: the union of what their training rows have, or the federation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from data_helpers import same

from edge_client.data import document
from edge_client.data.features import Features
from edge_client.data.load import load
from edge_client.data.partition import stratified
from edge_client.data.prepare import Options, prepare_all
from floe.cli import floe
from floe.errors import DataError


def run(*words: object) -> Result:
    return CliRunner().invoke(floe, [str(word) for word in words])


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """Oslo and Rome number their rows each from 1, know other kinds, and Rome alone has a column more."""
    write(tmp_path / "sites" / "oslo.csv", "id,kind,v,y", [f"{i},{'ab'[i % 2]},{i % 7},{i % 3 % 2}" for i in range(40)])
    rome = [f"{i % 5},{i},{'bc'[i % 2]},{100 + i % 7},{i % 3 % 2}" for i in range(30)]
    write(tmp_path / "sites" / "rome.csv", "more,id,kind,v,y", rome)
    return tmp_path / "sites"


def test_a_folder_of_csvs_becomes_a_client_for_each_with_one_schema(sites: Path, tmp_path: Path) -> None:
    (sites / "README.md").write_text("notes")
    words = ("prepare", sites, "--label", "y", "--normal", "0", "--out", tmp_path / "f")
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "no column more, which another file has" in result.output
    oslo, rome = (load(name, {}, tmp_path / "f") for name in ("oslo", "rome"))
    assert oslo.schema == rome.schema
    kinds = ("kind=a", "kind=b", "kind=c", "kind=other")
    assert oslo.schema.features == (*kinds, "v", "more", "more=missing")  # id is an identifier in each of the two
    assert [len(one.train_y) + len(one.test_y) for one in (oslo, rome)] == [40, 30]
    assert oslo.train_x[:, 6].tolist() == [1.0] * len(oslo.train_x)
    assert rome.train_x[:, 6].max() == 0.0
    assert run(*words).exit_code == 0
    documents = [document.read(tmp_path / "f" / name / "schema.json") for name in ("oslo", "rome")]
    assert [found.origin["csv"] for found in documents] == ["oslo.csv", "rome.csv"]


def test_the_files_may_be_named_one_by_one_and_the_order_of_columns_is_the_first_ones(sites: Path) -> None:
    found = prepare_all([sites / "rome.csv", sites / "oslo.csv"], Options("y"))
    names = [column.name for column in found[sites / "oslo.csv"].document.columns]
    assert names == ["more", "kind", "v"]


def test_classes_are_those_of_all_files(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", "v,y", [f"{i % 5},{'ab'[i % 2]}" for i in range(20)])
    two = write(tmp_path / "two.csv", "v,y", [f"{i % 5},{'bc'[i % 2]}" for i in range(20)])
    found = prepare_all([one, two], Options("y"))
    labels = [sorted(set(found[csv].features.train_y.tolist())) for csv in (one, two)]
    assert labels == [[0, 1], [1, 2]]
    assert found[one].features.schema.classes == 3


def test_nothing_of_any_test_row_is_in_the_schema(sites: Path) -> None:
    before = prepare_all([sites / "oslo.csv", sites / "rome.csv"], Options("y", seed=3))[sites / "rome.csv"].document
    header, *rows = (sites / "oslo.csv").read_text().splitlines()
    _, test = stratified(np.array([int(row[-1]) for row in rows]), 0.2, 3)
    for number in test:
        rows[number] = f"words,new,words,{rows[number][-1]}"
    write(sites / "oslo.csv", header, rows)
    after = prepare_all([sites / "oslo.csv", sites / "rome.csv"], Options("y", seed=3))[sites / "rome.csv"].document
    assert after == before


def test_with_the_federations_schema_each_follows_it_alone(sites: Path, tmp_path: Path) -> None:
    run("prepare", sites / "oslo.csv", "--label", "y", "--drop", "id", "--out", tmp_path)
    schema = tmp_path / "oslo" / "schema.json"
    result = run("prepare", sites, "--schema", schema, "--out", tmp_path / "f")
    assert result.exit_code == 0, result.output
    assert same(load("oslo", {}, tmp_path / "f"), load("oslo", {}, tmp_path))
    assert load("rome", {}, tmp_path / "f").schema == load("oslo", {}, tmp_path).schema
    assert "not in the federation's schema, left out: more" in result.output


@pytest.mark.parametrize(("name", "message"), [
    ("Site A.csv", r"Site A\.csv: the client would be called 'Site A': 1 to 64 of a-z, .*; rename the file"),
    ("oslo.csv.gz", "another file is client oslo, too; rename one"),
    ("bad.csv", r"bad\.csv: label: no column 'y'"),
])  # fmt: skip
def test_one_file_that_cannot_be_a_client_keeps_all_from_being_written(
    sites: Path, tmp_path: Path, name: str, message: str
) -> None:
    write(sites / name, "a,b", ["1,2"])
    with pytest.raises(DataError, match=message):
        raise run("prepare", sites, "--label", "y", "--out", tmp_path / "f").exception or AssertionError
    assert not (tmp_path / "f").exists()


def test_one_name_does_not_do_for_two_files_and_an_empty_folder_is_said(sites: Path, tmp_path: Path) -> None:
    result = run("prepare", sites, "--client", "all", "--label", "y", "--out", tmp_path / "f")
    assert "--client all: 2 files are a client each" in str(result.exception)
    (tmp_path / "empty").mkdir()
    assert "a folder without a .csv" in str(run("prepare", tmp_path / "empty", "--label", "y").exception)


def test_arrays_become_a_folder_as_they_are(tmp_path: Path, small: Features) -> None:
    x, y = (np.concatenate(pair) for pair in ((small.train_x, small.test_x), (small.train_y, small.test_y)))
    np.savez(tmp_path / "5.bank.npz", X=x, y=y)
    words = ("prepare", tmp_path / "5.bank.npz", "--client", "bank", "--out", tmp_path / "f")
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "3 features; train 0: 24, 1: 24; test 0: 6, 1: 6" in result.output
    assert same(load("bank", {}, tmp_path / "f"), load("5.bank.npz", {}, tmp_path))
    assert run(*words).exit_code == 0
    np.savez(tmp_path / "5.bank.npz", X=-x, y=y)
    assert "--force replaces them" in str(run(*words).exception)


def test_what_arrays_cannot_have_is_refused(sites: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", X=np.zeros((4, 2)), y=np.arange(4) % 2)
    for more in (("--label", "y"), ("--seed", 1), ("--log", "v")):
        assert "arrays are taken as they are" in str(run("prepare", tmp_path / "b.npz", *more).exception)
    words = ("prepare", sites, tmp_path / "b.npz", "--label", "y", "--out", tmp_path / "f")
    assert "prepare each by itself" in str(run(*words).exception)
    assert "would be called '5.c'" in str(run("prepare", tmp_path / "5.c.npz").exception)


def test_features_of_another_source_are_asked_about_before_any_is_replaced(sites: Path, tmp_path: Path) -> None:
    words = ("prepare", sites, "--label", "y", "--out", tmp_path / "f")
    assert run(*words).exit_code == 0
    before = load("oslo", {}, tmp_path / "f")
    assert "--force replaces them" in str(run(*words, "--seed", 1).exception)
    assert same(load("oslo", {}, tmp_path / "f"), before)
    assert run(*words, "--seed", 1, "--force").exit_code == 0
