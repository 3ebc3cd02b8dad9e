"""Data that comes divided: a file for each device becomes a feature folder for each device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from data_helpers import same

from edge_client.data import document
from edge_client.data.arrays import sha256
from edge_client.data.load import load
from edge_client.data.natural import devices, signed_log
from floe.cli import floe
from floe.errors import DataError


def recorded(path: Path, scale: float = 1.0, columns: int = 2) -> Path:
    """An .npz as N-BaIoT's: six rows of normal traffic to learn, three to test, four of attacks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"benign_train": 6, "benign_test": 3, "attack": 4}
    np.savez(path, **{name: np.full((n, columns), scale, np.float32) for name, n in sizes.items()})
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(floe, [str(word) for word in words])


def test_each_file_is_a_device_called_after_it(tmp_path: Path) -> None:
    recorded(tmp_path / "My Cam.1.npz", 3.0)
    recorded(tmp_path / "bell.npz")
    found = devices(str(tmp_path))
    assert list(found) == ["my_cam_1", "bell"]
    features, described = found["my_cam_1"]
    assert (features.train_y.tolist(), features.test_y.tolist()) == ([0] * 6, [0] * 3 + [1] * 4)
    assert features.train_x.max() == 3.0
    origin = {"data": tmp_path.name, "partition": "natural", "file": "My Cam.1.npz"}
    assert described.origin == {**origin, "sha256": sha256(tmp_path / "My Cam.1.npz")}


def test_nbaiot_is_found_through_floe_data_and_its_logarithm_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path / "nbaiot" / "Danmini_Doorbell.npz", -1e17)
    (tmp_path / "nbaiot" / "columns.json").write_text(json.dumps({"features": ["a", "b"], "devices": []}))
    monkeypatch.setenv("FLOE_DATA", str(tmp_path))
    words = ("data", "split", "--data", "nbaiot", "--partition", "natural", "--out", tmp_path / "out")
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "danmini_doorbell" in result.output
    found = load("danmini_doorbell", {}, tmp_path / "out")
    assert found.train_x == pytest.approx(-np.log(1e17))
    described = document.read(tmp_path / "out" / "danmini_doorbell" / "schema.json")
    assert [(column.name, column.log) for column in described.columns] == [("a", True), ("b", True)]
    recorded(tmp_path / "nbaiot" / "Danmini_Doorbell.npz", 7.0)
    assert isinstance(run(*words).exception, DataError)
    assert same(load("danmini_doorbell", {}, tmp_path / "out"), found)
    assert run(*words, "--force").exit_code == 0


def test_the_signed_logarithm_by_hand() -> None:
    found = signed_log(np.float32([[-1e17, 0, np.e - 1]]))
    assert found.tolist() == [pytest.approx([-17 * np.log(10), 0.0, 1.0])]


@pytest.mark.parametrize("source", ["", "nbaiot"])
def test_where_nothing_is_found_the_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.delenv("FLOE_DATA", raising=False)
    with pytest.raises(DataError, match="FLOE_DATA is not set" if source else f"{tmp_path}: no .npz in it"):
        devices(source or str(tmp_path))


def test_files_that_are_no_federation_are_refused(tmp_path: Path) -> None:
    recorded(tmp_path / "a.npz")
    recorded(tmp_path / "b.npz", columns=3)
    with pytest.raises(DataError, match=r"b has examples of shape \(3,\), a of \(2,\)"):
        devices(str(tmp_path))
    (tmp_path / "b.npz").unlink()
    recorded(tmp_path / "A.npz")
    with pytest.raises(DataError, match="two files for a device a; rename one"):
        devices(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"features": 1}'])
def test_columns_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    recorded(tmp_path / "nbaiot" / "a.npz")
    (tmp_path / "nbaiot" / "columns.json").write_text(text)
    monkeypatch.setenv("FLOE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"columns\.json: expected"):
        devices("nbaiot")


def test_nbaiot_is_not_divided_again(tmp_path: Path) -> None:
    result = run("data", "split", "--data", "nbaiot", "--clients", 3, "--out", tmp_path / "out")
    assert "--partition natural" in str(result.exception)


def test_the_nine_devices_of_nbaiot(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOE_DATA", str(data_folder))
    found = devices("nbaiot")
    rows = {
        name: (len(one.train_y), int((one.test_y == 0).sum()), int(one.test_y.sum()))
        for name, (one, _) in found.items()
    }
    assert len(rows) == 9
    assert rows["ecobee_thermostat"] == (393, 130, 4109)
    assert np.sum(list(rows.values()), axis=0).tolist() == [16676, 5520, 32491]
    schema = found["ecobee_thermostat"][0].schema
    assert (schema.shape, schema.classes, schema.features[0]) == ((115,), 2, "MI_dir_L5_weight")
    assert max(np.abs(one.test_x).max() for one, _ in found.values()) < 50
