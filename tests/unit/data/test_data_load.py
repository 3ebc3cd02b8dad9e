"""Everything that `load` takes: folders, files, aliases, and what it says about the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import same

from edge_client.data import folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from edge_client.data.load import load
from floe.errors import DataError, StoreError
from floe.schema import Schema


def test_a_written_folder_loads_equal(tmp_path: Path, small: Features) -> None:
    named = Features(small.train_x, small.train_y, small.test_x, small.test_y, Schema((3,), 7, ("a", "b", "c")))
    folder.write(tmp_path / "device", named, Document(schema=named.schema))
    assert same(load("device", {}, tmp_path), named)
    assert sorted(path.name for path in (tmp_path / "device").iterdir()) == [
        "schema.json",
        "test_x.npy",
        "test_y.npy",
        "train_x.npy",
        "train_y.npy",
    ]


def test_without_schema_json_features_are_unnamed_and_classes_counted(tmp_path: Path, small: Features) -> None:
    folder.write(tmp_path, small, Document(schema=small.schema))
    (tmp_path / "schema.json").unlink()
    assert load(".", {}, tmp_path).schema == Schema((3,), 2)


def test_a_write_that_breaks_off_leaves_a_folder_that_does_not_load(
    tmp_path: Path, small: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(tmp_path, small, Document(schema=small.schema))
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "train_y.npy":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        folder.write(tmp_path, small, Document(schema=small.schema))
    with pytest.raises(DataError, match=r"test_y\.npy: missing"):
        load(str(tmp_path), {}, tmp_path)


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path, small: Features) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    folder.write(tmp_path, small, Document(schema=small.schema))
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("label", "message"), [
    (-1, r"train_y(\.npy)?: label -1 in row 3; labels are whole numbers from 0: number the classes so"),
    (7, r"train_y\[3\] is 7: labels go from 0 to 1; number them so, or correct the classes in schema\.json"),
])  # fmt: skip
def test_a_label_out_of_range_says_where_it_is(tmp_path: Path, small: Features, label: int, message: str) -> None:
    folder.write(tmp_path / "device", small, Document(schema=small.schema))
    y = np.load(tmp_path / "device" / "train_y.npy")
    y[3] = label
    np.save(tmp_path / "device" / "train_y.npy", y)
    with pytest.raises(DataError, match=rf"data 'device': {message}"):
        load("device", {}, tmp_path)
    np.savez(tmp_path / "d.npz", train_x=small.train_x, train_y=y, test_x=small.test_x, test_y=small.test_y)
    if label < 0:  # an .npz says nothing of its classes: they are as many as the labels say
        with pytest.raises(DataError, match=rf"data 'd\.npz': {message}"):
            load("d.npz", {}, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"version": 2, "schema": {"shape": [3], "classes": 2}}', "version"),
        ('{"version": 1, "schema": {"shape": [4], "classes": 2}}', "the schema says"),
        ('{"version": 1, "schema": {"shape": [3], "classes": 1}}', "labels go from 0 to 0"),
        ('{"version": 1, "schema": {"shape": [3], "classes": 2, "features": ["a", "b"]}}', "names 2 different"),
        ('{"version": 1, "schema": {"shape": [3], "classes": 2, "features": ["a", "b", "b"]}}', "names 2 different"),
    ],
)
def test_a_schema_that_does_not_fit_is_said(tmp_path: Path, small: Features, text: str, message: str) -> None:
    folder.write(tmp_path, small, Document(schema=small.schema))
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load(".", {}, tmp_path)


@pytest.mark.parametrize(
    "names", [("train_x", "train_y", "test_x", "test_y"), ("x_train", "y_train", "x_test", "y_test")]
)
def test_an_npz_with_train_and_test(tmp_path: Path, small: Features, names: tuple[str, ...]) -> None:
    arrays = (small.train_x, small.train_y, small.test_x, small.test_y)
    np.savez(tmp_path / "d.npz", **dict(zip(names, arrays, strict=True)))
    assert same(load("d.npz", {}, tmp_path), small)


@pytest.mark.parametrize("name", ["X", "x"])
def test_an_npz_of_one_piece_is_split_80_20_by_class(tmp_path: Path, name: str) -> None:
    x, y = np.arange(50.0).reshape(50, 1), np.repeat([0, 1], [40, 10])
    np.savez(tmp_path / "d.npz", **{name: x, "y": y})
    found = load("d.npz", {}, tmp_path)
    assert [np.bincount(part).tolist() for part in (found.train_y, found.test_y)] == [[32, 8], [8, 2]]
    assert sorted([*found.train_x[:, 0], *found.test_x[:, 0]]) == list(range(50))
    assert same(found, load("d.npz", {}, tmp_path))


def test_normal_and_attack_rows_become_anomaly_data(tmp_path: Path) -> None:
    rows = {"benign_train": 4, "benign_test": 2, "attack": 3}
    np.savez(tmp_path / "d.npz", **{name: np.zeros((count, 5), np.float32) for name, count in rows.items()})
    found = load("d.npz", {}, tmp_path)
    assert (found.train_y.tolist(), found.test_y.tolist()) == ([0, 0, 0, 0], [0, 0, 1, 1, 1])


@pytest.mark.parametrize(("x", "y"), [("x.npy", "y.npy"), ("x_mine.npy", "y_mine.npy")])
def test_x_npy_takes_the_y_npy_beside_it(tmp_path: Path, x: str, y: str) -> None:
    np.save(tmp_path / x, np.arange(10.0).reshape(10, 1))
    np.save(tmp_path / y, np.arange(10) % 2)
    assert len(load(x, {}, tmp_path).train_x) == 8
    (tmp_path / y).unlink()
    with pytest.raises(DataError, match=f"{y}: cannot be read: No such file"):
        load(x, {}, tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "no data given"),
        ("nowhere", "no such file or folder"),
        (".", "no data found; expected train_x.npy"),
        ("a.csv", "floe prepare"),
        ("odd.npz", "has odd; expected"),
        ("short.npz", "3 rows and 2 labels"),
        ("empty.npz", "has no rows"),
        ("nan.npz", "NaN or infinite values, first in row"),
        ("notes.txt", "expected a folder"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, source: str, message: str) -> None:
    for name in ("a.csv", "notes.txt"):
        (tmp_path / name).write_text("a,b")
    np.savez(tmp_path / "odd.npz", odd=np.zeros(2))
    np.savez(tmp_path / "short.npz", X=np.zeros((3, 2)), y=np.zeros(2))
    np.savez(tmp_path / "empty.npz", X=np.zeros((0, 2)), y=np.zeros(0))
    np.savez(tmp_path / "nan.npz", X=np.full((9, 2), np.nan), y=np.arange(9) % 2)
    with pytest.raises(DataError, match=message):
        load(source, {}, tmp_path)


def test_an_alias_calls_the_users_function_beside_the_configuration(tmp_path: Path, small: Features) -> None:
    folder.write(tmp_path / "kept", small, Document(schema=small.schema))
    (tmp_path / "users_own_data.py").write_text(
        "from pathlib import Path\nfrom edge_client.data import folder\n"
        "def mine():\n    return folder.read(Path(__file__).parent / 'kept')\n"
        "def number():\n    return 3\ndef broken():\n    return 1 / 0\n"
        "def leaving():\n    raise SystemExit('no sensor')\n"
    )
    aliases = {name: f"users_own_data:{name}" for name in ("mine", "number", "broken", "absent", "leaving")}
    assert same(load("mine", aliases, tmp_path), small)
    for alias, message in (
        ("number", "returned int"),
        ("broken", "ZeroDivisionError"),
        ("absent", "AttributeError"),
        ("leaving", "SystemExit: no sensor"),
    ):
        with pytest.raises(DataError, match=rf'\[data\] {alias} = "users_own_data:{alias}".*{message}'):
            load(alias, aliases, tmp_path)


@pytest.mark.parametrize("target", ["nowhere_to_be_found:f", "json", "json:", ":f", "json:dumps"])
def test_a_wrong_target_names_alias_and_target(tmp_path: Path, target: str) -> None:
    with pytest.raises(DataError, match=rf'\[data\] odd = "{target}"'):
        load("odd", {"odd": target}, tmp_path)


def test_real_anomaly_data_of_one_device(data_folder: Path) -> None:
    found = load("nbaiot/Ennio_Doorbell.npz", {}, data_folder)
    assert (found.train_x.shape, len(found.test_x)) == ((1169, 115), 390 + 1579)
    assert (found.train_y.max(), found.test_y.sum()) == (0, 1579)


def test_real_npz_of_one_piece(data_folder: Path) -> None:
    found = load("bank_campaign/5_campaign.npz", {}, data_folder)
    assert (found.schema.shape, len(found.train_x) + len(found.test_x)) == ((62,), 41188)
    assert (found.train_y.sum(), found.test_y.sum()) == (3712, 928)
