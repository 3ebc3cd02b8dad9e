"""CSV to features: what each column becomes, what is dropped and why, and that nothing leaks."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import numpy as np
import pytest
from data_helpers import same
from hypothesis import given
from hypothesis import strategies as st

from edge_client.data import columns, document
from edge_client.data.document import Column, Document, Label
from edge_client.data.partition import stratified
from edge_client.data.prepare import Options, Prepared, prepare
from floe.errors import DataError
from floe.schema import Schema

HEADER = "id,name,city,age,country,empty,fraud"


def table(rows: int = 20) -> list[list[str]]:
    """id rises, name is unique, age has one gap, country is constant; every fourth row is fraud."""
    cities = ["Rome", "Oslo", "", "Rome"]
    return [
        [str(100 + i), f"n{i}", cities[i % 4], "" if i == 5 else str(20 + i % 7), "IT", "", str(int(i % 4 == 0))]
        for i in range(rows)
    ]


def write(path: Path, rows: list[list[str]], header: str = HEADER, delimiter: str = ",") -> Path:
    lines = [header.replace(",", delimiter), *(delimiter.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def prepared(path: Path, rows: list[list[str]] | None = None, **options: object) -> Prepared:
    csv = write(path / "data.csv", table() if rows is None else rows)
    return prepare(csv, Options(**{"label": "fraud", "normal": "0", **options}))  # type: ignore[arg-type]


def encoding(found: Document) -> Document:
    """All but where the rows came from."""
    return msgspec.structs.replace(found, origin={})


def column(found: Prepared, name: str) -> np.ndarray:
    index = found.document.schema.features.index(name)
    return np.concatenate([found.features.train_x, found.features.test_x])[:, index]


def test_each_column_becomes_what_it_is(tmp_path: Path) -> None:
    found = prepared(tmp_path)
    assert [(d.name, d.reason.split(":")[0]) for d in found.document.dropped] == [
        ("id", "identifier"),
        ("name", "identifier"),
        ("country", "constant"),
        ("empty", "empty"),
    ]
    assert found.document.schema.features[:4] == ("city=Oslo", "city=Rome", "city=other", "city=missing")
    assert [column(found, f"city={name}").sum() for name in ("Oslo", "Rome", "other", "missing")] == [5, 10, 0, 5]
    assert column(found, "age").min() == 20
    assert np.bincount(found.features.train_y).tolist() == [12, 4]
    assert np.bincount(found.features.test_y).tolist() == [3, 1]


def test_a_gap_in_numbers_becomes_the_median_of_the_training_rows_and_an_indicator(tmp_path: Path) -> None:
    rows = [[str(value), label] for value, label in zip([1, 2, 30, "", "", ""] * 10, "01" * 30, strict=True)]
    csv = write(tmp_path / "d.csv", rows, "v,y")
    found = prepare(csv, Options(label="y"))
    assert found.document.schema.features == ("v", "v=missing")
    train = found.features.train_x
    values = train[train[:, 1] == 0, 0]
    assert np.all(train[train[:, 1] == 1, 0] == np.median(values))
    assert found.document.columns[0].median == np.median(values)


@given(st.integers(0, 50))
def test_nothing_of_the_test_rows_leaks_into_the_schema(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    tmp_path = tmp_path_factory.mktemp("leak")
    rows = [["red" if i % 3 else "blue", str(i * i % 11), str(i % 2)] for i in range(40)]
    before = prepare(write(tmp_path / "a.csv", rows, "c,v,y"), Options(label="y", seed=seed))
    train = {tuple(row) for row in before.features.train_x.tolist()}
    numbers = [i for i, row in enumerate(rows) if i not in _train_rows(rows, seed)]
    for i in numbers:
        rows[i][:2] = ["green", "words"]
    after = prepare(write(tmp_path / "b.csv", rows, "c,v,y"), Options(label="y", seed=seed))
    assert encoding(after.document) == encoding(before.document)
    assert {tuple(row) for row in after.features.train_x.tolist()} == train
    assert after.features.test_x[:, 2].tolist() == [1.0] * 8  # green is "other"
    assert any("not numbers ('words')" in note for note in after.notes)


def _train_rows(rows: list[list[str]], seed: int) -> set[int]:
    return set(stratified(np.array([int(row[-1]) for row in rows]), 0.2, seed)[0].tolist())


def test_the_same_bytes_and_flags_give_the_same_features(tmp_path: Path) -> None:
    first, second = prepared(tmp_path), prepared(tmp_path)
    assert same(first.features, second.features)
    assert first.document.to_json() == second.document.to_json()
    assert not same(first.features, prepared(tmp_path, seed=1).features)


def test_schema_json_comes_back(tmp_path: Path) -> None:
    found = prepared(tmp_path, log=("age",)).document
    (tmp_path / "schema.json").write_bytes(found.to_json())
    assert document.read(tmp_path / "schema.json") == found
    assert b'"median": 2' in found.to_json()


def test_the_federations_schema_is_followed_exactly(tmp_path: Path) -> None:
    federation = prepared(tmp_path, log=("age",)).document
    rows = [["x", "y", "Bonn", "1000", "DE", "z", str(i % 2)] for i in range(20)]
    rows[3][3] = ""
    found = prepared(tmp_path, rows, label=None, normal=None, schema=federation)
    assert encoding(found.document) == encoding(federation)
    assert column(found, "city=other").tolist() == [1.0] * 20
    assert set(column(found, "age").tolist()) == {
        np.float32(np.log1p(1000)),
        np.float32(np.log1p(federation.columns[1].median)),
    }
    assert any("20 rows in no category" in note for note in found.notes)


def test_a_device_that_lacks_a_column_is_told_which(tmp_path: Path) -> None:
    federation = prepared(tmp_path).document
    csv = write(tmp_path / "d.csv", [["Rome", "0"], ["Rome", "1"]], "City,fraud")
    with pytest.raises(DataError, match="the federation's schema: no column 'city'; similar: City"):
        prepare(csv, Options(schema=federation))


def test_columns_that_the_federation_lacks_are_named(tmp_path: Path) -> None:
    federation = prepared(tmp_path).document
    csv = write(tmp_path / "d.csv", [["9", *row] for row in table()], "more," + HEADER)
    assert "left out: more" in prepare(csv, Options(schema=federation)).notes[-1]


def test_classes_are_numbered_in_order_and_by_the_federation(tmp_path: Path) -> None:
    rows = [[str(i % 5), ["10", "9", "b"][i % 3]] for i in range(30)]
    found = prepare(write(tmp_path / "d.csv", rows, "v,y"), Options(label="y"))
    assert found.document.label == Label("y", classes=("9", "10", "b"))
    two = prepare(write(tmp_path / "d.csv", [r for r in rows if r[1] != "9"], "v,y"), Options(schema=found.document))
    assert (set(two.features.train_y.tolist()), two.features.schema.classes) == ({1, 2}, 3)
    with pytest.raises(DataError, match="label y: '7' is none of 9, 10, b"):
        prepare(write(tmp_path / "d.csv", [["1", "7"], ["2", "9"]], "v,y"), Options(schema=found.document))


def test_the_signed_logarithm_by_hand(tmp_path: Path) -> None:
    rows = [[str(value), str(i % 2)] for i, value in enumerate([-1e6, 0, 3, 1e6] * 5)]
    csv = write(tmp_path / "d.csv", rows, "v,y")
    found = prepare(csv, Options(label="y", log=("v",)))
    expected = np.float32([-np.log1p(1e6), 0, np.log(4), np.log1p(1e6)])
    assert np.unique(found.features.train_x).tolist() == expected.tolist()


def test_a_huge_range_is_pointed_out(tmp_path: Path) -> None:
    rows = [[str(10**9 if i == 7 else i % 5), str(i % 2)] for i in range(40)]
    csv = write(tmp_path / "d.csv", rows, "v,y")
    notes = [prepare(csv, Options(label="y", seed=seed)).notes for seed in range(5)]
    assert any("consider --log v" in note for found in notes for note in found)


def test_what_float32_cannot_hold_suggests_the_logarithm(tmp_path: Path) -> None:
    rows = [[f"{i % 5}e300", str(i % 2)] for i in range(20)]
    csv = write(tmp_path / "d.csv", rows, "v,y")
    with pytest.raises(DataError, match=r"column v, row 2: 1e300 is too large for float32; --log v"):
        prepare(csv, Options(label="y"))
    assert np.isfinite(prepare(csv, Options(label="y", log=("v",))).features.train_x).all()


def test_rare_categories_become_other(tmp_path: Path) -> None:
    rows = [[f"c{i % 50 if i < 100 else i % 5}", str(i % 2)] for i in range(400)]
    found = prepare(write(tmp_path / "d.csv", rows, "c,y"), Options(label="y"))
    assert len(found.document.columns[0].categories) == 32
    assert set(found.document.columns[0].categories) >= {f"c{i}" for i in range(5)}
    assert column(found, "c=other").sum() > 0


def test_a_rising_year_is_no_identifier(tmp_path: Path) -> None:
    rows = [[str(1994 + i // 10), str(i % 2)] for i in range(30)]
    assert prepare(write(tmp_path / "d.csv", rows, "year,y"), Options(label="y")).document.dropped == ()


def test_the_delimiter_is_seen_from_the_header_and_gzip_is_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "d.csv", table(), delimiter=";")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    options = Options(label="fraud", normal="0")
    assert same(prepare(tmp_path / "d.csv.gz", options).features, prepared(tmp_path).features)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a,y\n", "a header and no rows"),
        ("a,a,y\n1,2,3\n", "names 'a' twice"),
        ("a,,y\n1,2,3\n", "a column without a name"),
        ("a,y\n1,2\n3,4,5\n", "rows and header do not fit, with ',' between fields"),
        ("a,y\n1,2,3\n3,4,5\n", "rows and header do not fit"),
        ('a,y\n"1,2\n', "rows and header do not fit"),
        ("a,Y\n1,2\n", "label: no column 'y'; similar: Y"),
        ("a:y\n1:2\n", "only one column, 'a:y', with ',' between fields; --delimiter"),
        ("v,w\n1,2\n", "label: no column 'y'; there are: v, w"),
        ("a,y\n1,0\n2,0\n", "only one class, '0'"),
        (f"{'a' * 201},y\n1,0\n", "column '" + "a" * 57 + r"\.\.\.': a name of over 200 characters"),
        (f'"{"a" * 200_000},y\n1,0\n', r"header cannot be read: field larger .*; is a quotation mark left open\?"),
        ("a,y\n" + "".join(f"{i},{i}.5\n" for i in range(300)), "label 'y' has 300 different values: not classes; use"),
        ("a,y\n" + "".join(f"{i},{i % 30}.5\n" for i in range(300)), "label 'y' has 30 different values: not classes"),
        (f"a,y\n1,{'b' * 201}\n2,c\n", "label y: '" + "b" * 57 + r"\.\.\.' has over 200 characters: not a class"),
        ("a,y\n1,0\n2,\n", "label y: 1 rows have none, first row 2"),
        ("a,y\n1,0\n2,nan\n", "label y: 1 rows have none, first row 2"),
        ("a,y\n1,0\n1,1\n1,0\n1,1\n", "no column is left"),
        ("a,y\n1,0\ninf,1\n2,0\ninf,1\n", "inf is too large for float32; correct the row"),
        ("a,y\n1,0\n2,1\n", "test_x has no rows"),
        ("a=missing,a,y\n1,1,0\n2,,0\n2,,1\n1,1,1\n2,2,0\n1,,0\n2,,1\n1,2,1\n", "two features would be called"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "d.csv").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        prepare(tmp_path / "d.csv", Options(label="y"))
    assert str(tmp_path / "d.csv") in str(caught.value)


def test_another_delimiter_can_be_given(tmp_path: Path) -> None:
    csv = write(tmp_path / "d.csv", table(), delimiter=":")
    assert same(prepare(csv, Options("fraud", "0", delimiter=":")).features, prepared(tmp_path).features)


@pytest.mark.parametrize("delimiter", ["", ",,", "€", '"', "\n", r"\t"])
def test_a_delimiter_is_one_character(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(DataError, match=r"--delimiter .*: one ASCII character"):
        prepare(write(tmp_path / "d.csv", table()), Options("fraud", delimiter=delimiter))


def test_a_blank_may_be_the_delimiter(tmp_path: Path) -> None:
    rows = [[str(i % 5), str(i % 2)] for i in range(20)]
    csv = write(tmp_path / "d.csv", rows, "v,y", " ")
    assert prepare(csv, Options("y", delimiter=" ")).document.schema.features == ("v",)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("rows", [1, 50_000])
def test_another_encoding_than_utf_8_is_said(tmp_path: Path, encoding: str, rows: int) -> None:
    (tmp_path / "d.csv").write_bytes(("a,y\n" + "1,0\n" * rows + "naïve,1\n").encode(encoding))
    with pytest.raises(DataError, match=r"d\.csv: is not UTF-8 text \(.*\); save it as UTF-8"):
        prepare(tmp_path / "d.csv", Options(label="y"))


def test_numbers_of_the_federation_that_are_all_text_here_are_another_column(tmp_path: Path) -> None:
    federation = prepared(tmp_path).document
    swapped = [[*row[:2], row[3], row[2], *row[4:]] for row in table()]
    with pytest.raises(DataError, match=r"column age: .* none of its 15 values is one \('Rome'\); is it another file"):
        prepared(tmp_path, swapped, label=None, normal=None, schema=federation)
    swapped[1][3] = "31"
    assert any("'Rome'), taken as missing" in note for note in prepared(tmp_path, swapped, schema=federation).notes)


def test_values_are_quoted_in_60_characters(tmp_path: Path) -> None:
    federation = prepared(tmp_path).document
    long = "z\x1b" + "z" * 5_000_000
    rows = table()
    rows[1][2:4] = [long, long]
    notes = prepared(tmp_path, rows, schema=federation).notes
    assert [note.count("'z?" + "z" * 55 + "...'") for note in notes[:2]] == [1, 1]
    constant = prepared(tmp_path, [[*row[:4], long, *row[5:]] for row in table()]).document.dropped[2]
    assert (constant.name, len(constant.reason)) == ("country", len("constant: always ") + 60)


def test_numbers_at_the_end_of_float64_overflow_nowhere(tmp_path: Path) -> None:
    values = ["1.7e308", "-1.7e308", "1.6e308", "1.7e308", "5e-324", "", "99999999999999999999999"] * 6
    rows = [[value, str(i % 2)] for i, value in enumerate(values)]
    csv = write(tmp_path / "d.csv", rows, "v,y")
    with pytest.raises(DataError, match="too large for float32; --log v"):
        prepare(csv, Options(label="y"))
    assert np.isfinite(prepare(csv, Options(label="y", log=("v",))).features.train_x).all()
    huge = [["1.6e308" if i < 20 else "1.7e308", str(i % 2)] for i in range(40)]
    found = prepare(write(tmp_path / "d.csv", huge, "v,y"), Options(label="y", log=("v",), seed=1))
    assert 1.6e308 <= found.document.columns[0].median <= 1.7e308


def test_thousands_of_columns_are_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    counted = columns.to_numbers
    monkeypatch.setattr(columns, "to_numbers", lambda cells: (calls.append(len(cells)), counted(cells))[1])
    rows = [[*(str((i * j) % 7) for j in range(1, 2001)), str(i % 2)] for i in range(12)]
    found = prepare(write(tmp_path / "d.csv", rows, ",".join(f"c{j}" for j in range(2000)) + ",y"), Options(label="y"))
    assert len(found.document.columns) + len(found.document.dropped) == 2000
    assert len(calls) == 2000 + len(found.document.columns)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("naïve,y\n1,2\n".encode("latin-1"))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"a,y\n" * 999)[:-20])
    for name in ("absent.csv", ".", "latin.csv", "cut.csv.gz"):
        with pytest.raises(DataError, match=name):
            prepare(tmp_path / name, Options(label="y"))


def test_normal_needs_normal_rows_and_only_warns_without_anomalies(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no row is 'ok' \(normal\); found 0, 1"):
        prepared(tmp_path, normal="ok")
    found = prepared(tmp_path, [[*row[:-1], "0"] for row in table()])
    assert found.features.train_y.max() == 0
    assert found.features.schema.classes == 2
    assert any("no anomalies" in note for note in found.notes)
    assert same(prepared(tmp_path, normal="0.0").features, prepared(tmp_path).features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(), "--label COLUMN is needed"),
        (Options(label="fraud", drop=("agee",)), "no column 'agee'; similar: age"),
        (Options(label="fraud", log=("city",)), "--log city: not a column of numbers"),
        (Options(label="fraud", test=1.5), "test share 1.5"),
        (Options(schema=Document(schema=Schema((3,), 2))), "describes arrays without columns"),
        (Options(drop=("a",), schema=Document(schema=Schema((3,), 2))), "do not go with --schema"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(write(tmp_path / "d.csv", table()), options)


def test_a_schema_whose_names_do_not_follow_from_its_columns_is_refused(tmp_path: Path) -> None:
    forged = Document(schema=Schema((1,), 2, ("b",)), columns=(Column(name="a", kind="numeric"),))
    (tmp_path / "schema.json").write_bytes(forged.to_json())
    with pytest.raises(DataError, match="do not follow from the columns"):
        document.read(tmp_path / "schema.json")


def test_real_insurance_claims(data_folder: Path) -> None:
    csv = data_folder / "insurance_fraud_oracle" / "fraud_oracle.csv.gz"
    found = prepare(csv, Options(label="FraudFound_P", normal="0"))
    assert [dropped.name for dropped in found.document.dropped] == ["PolicyNumber"]
    assert len(found.features.train_x) + len(found.features.test_x) == 15420
    assert found.features.train_y.sum() + found.features.test_y.sum() == 923
    assert {column.name for column in found.document.columns if column.kind == "numeric"} >= {"Age", "Year"}
    followed = prepare(csv, Options(schema=found.document))
    assert same(followed.features, found.features)
