"""`floe models` on a real log and real files, without a federation."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

from aggregator import models_command
from aggregator.models_command import models
from aggregator.registry import Model, Registry
from floe import weights
from floe.errors import ConfigError, DataError, FloeError, KeyFileError, StoreError
from floe.files import hash_of
from floe.identity import load_identity
from floe.messages import Phase
from floe.schema import Schema
from floe.store import open_log
from floe.terminal import printable

ARRAYS = {
    "file": np.array([[1.5, -2.0]], np.float32),
    "steps": np.array(7),
    "scaling.mean": np.array([0.25, 0.5]),
    "scaling.scale": np.array([1.0, 2.0]),
}
SCHEMA = Schema(shape=(2,), classes=2, features=("height", "weight\x1b[2J"))


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models 0 and 1 of epoch 1, signed, with one update for each, in the working directory."""
    monkeypatch.chdir(tmp_path)
    db = open_log(tmp_path / "log" / "floe.sqlite")
    identity = load_identity(tmp_path / "state" / "aggregator-main" / "keys", "main")
    registry = Registry(tmp_path / "models", tmp_path / "state" / "published", print)
    for number in (0, 1):
        phase = Phase("main", 1, number, "train" if number else "init")
        path = registry.path(phase)
        weights.write(path, {**ARRAYS, "steps": np.array(number)}, {"schema": SCHEMA.to_json()})
        row = registry.row(Model(number, path, hash_of(path)), phase, identity, devices=2, samples=10 * number)
        db.table("models").insert({**row, "created_at": "2026-11-22T00:00:00.000Z", "loss": 0.5, "accuracy": 0.75})
        update: dict[str, Any] = {"lineage": "main", "epoch": 1, "round": number, "task": phase.task, "bytes": 1}
        update |= {"transfer": str(number), "device": "pump-1", "outcome": "accepted", "reason": "", "detail": ""}
        db.table("updates").insert({**update, "samples": 10, "threshold": 1.25, "suite": "plaintext", "time": ""})
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(models, arguments)


def fails(kind: type[FloeError], *arguments: str) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


def test_list_has_a_line_for_each_model(federation: Path) -> None:
    lines = run("list").output.splitlines()
    assert len(lines) == 3
    found = lines[2].split()
    assert found[:2] == ["1", "1"]
    assert found[2] == hash_of(federation / "models" / "global" / "1.safetensors")[:12]
    assert found[3:7] == ["2", "10", "0.5000", "0.7500"]


def test_list_as_json_has_the_rows_of_the_log(federation: Path) -> None:
    found = json.loads(run("list", "--json").output)
    assert [row["round"] for row in found] == [0, 1]
    assert found[1]["samples"] == 10


def test_list_says_which_model_is_the_present_one(federation: Path) -> None:
    assert [line.split()[-1] == "present" for line in run("list").output.splitlines()[1:]] == [False, True]
    with closing(sqlite3.connect(federation / "log" / "floe.sqlite")) as db, db:
        db.execute(
            "INSERT INTO control (lineage, held, last, since, count, opens, model, model_after) "
            "SELECT 'main', '', 0, 1, 0, '', sha256, '1-1' FROM models WHERE round = 0"
        )
    assert [row["present"] for row in json.loads(run("list", "--json").output)] == [True, False]


def test_a_model_is_chosen_by_its_round_or_the_beginning_of_its_hash(federation: Path) -> None:
    with closing(sqlite3.connect(federation / "log" / "floe.sqlite")) as db, db:
        for round_, sha256 in enumerate(("0" * 12 + "a" * 52, "0" * 12 + "b" * 52)):
            db.execute("UPDATE models SET sha256 = ? WHERE round = ?", (sha256, round_))
    assert "the hashes of models 0, 1 begin so; give more" in fails(DataError, "promote", "0" * 8)
    assert "there are: 0, 1 (or `latest`)" in fails(DataError, "promote", "0" * 7)
    assert "no such global model" in fails(DataError, "promote", "c" * 64)
    for found in ("1", "0" * 12 + "b", "latest"):
        assert "operator.pem: no operator's key here" in fails(KeyFileError, "promote", found)


def test_show_checks_hash_and_signature_and_lists_tensors_and_updates(federation: Path) -> None:
    about = json.loads(run("show", "latest", "--json").output)
    assert (about["round"], about["file_check"], about["signature_check"]) == (1, "ok", "ok")
    assert {"name": "file", "shape": [1, 2], "dtype": "float32"} in about["tensors"]
    assert about["schema"]["shape"] == [2]
    assert [(update["device"], update["threshold"]) for update in about["updates"]] == [("pump-1", 1.25)]


def open_round(federation: Path, number: int, task: str, base: str, personal: list[str]) -> None:
    row: dict[str, Any] = {"lineage": "main", "epoch": 1, "round": number, "task": task, "state": "closed"}
    row |= {"base_sha256": base, "plan": json.dumps({"personal": personal}), "bar": "", "expected": "[]"}
    open_log(federation / "log" / "floe.sqlite").table("rounds").insert({**row, "opened_at": ""})


def test_show_says_what_stays_on_the_devices(federation: Path) -> None:
    assert json.loads(run("show", "1", "--json").output)["personal"] is None
    first = json.loads(run("show", "0", "--json").output)
    open_round(federation, 0, "sums", "", ["before.*"])
    open_round(federation, 1, "train", first["sha256"], ["*bn*", "logits\x1b.*"])
    for number in ("0", "1"):  # the first to start from it, the round that made it
        assert json.loads(run("show", number, "--json").output)["personal"] == ["*bn*", "logits\x1b.*"]
        [line] = [line for line in run("show", number).output.splitlines() if line.startswith("personal")]
        assert line == "personal         *bn*, logits\\x1b.*: stays on each device, and is in no global model"


def test_show_says_nothing_of_personal_layers_where_there_are_none(federation: Path) -> None:
    open_round(federation, 1, "train", "", [])
    assert json.loads(run("show", "1", "--json").output)["personal"] == []
    assert "personal" not in run("show", "1").output


def test_show_prints_names_from_elsewhere_without_control_characters(federation: Path) -> None:
    text = run("show", "0").output
    assert "weight\\x1b[2J" in text
    assert "\x1b" not in text
    assert "[1, 2]" in text


@pytest.mark.parametrize("name", ["[/b]", "[red]w[/red]", ":bomb:", "w\x1b[2J", "\u202ew", "<b>w</b>"])
def test_show_prints_a_tensor_s_name_as_it_is_and_not_as_markup(federation: Path, name: str) -> None:
    path = federation / "models" / "global" / "1.safetensors"
    weights.write(path, {name: np.zeros(1)}, {"schema": SCHEMA.to_json()})
    with closing(sqlite3.connect(federation / "log" / "floe.sqlite")) as db, db:
        db.execute("UPDATE models SET sha256 = ? WHERE round = 1", (hash_of(path),))
    result = run("show", "1")
    assert result.exit_code == 0, result.exception
    assert [line.split() for line in result.output.splitlines() if "[1]" in line] == [
        [printable(name), "[1]", "float64"]
    ]


@pytest.mark.parametrize("name", ["../../w", "/w", "a/../w", "..\\w", "w\0", "w\n", "\u202ew"])
def test_no_npz_is_made_with_a_name_that_would_leave_its_folder(federation: Path, name: str) -> None:
    path = federation / "models" / "global" / "1.safetensors"
    weights.write(path, {name: np.zeros(1), "a/b": np.zeros(1)})
    with closing(sqlite3.connect(federation / "log" / "floe.sqlite")) as db, db:
        db.execute("UPDATE models SET sha256 = ? WHERE round = 1", (hash_of(path),))
    assert "cannot name a file in an archive" in fails(DataError, "export", "1", "--to", "out.npz")
    assert not (federation / "out.npz").exists()
    assert run("export", "1", "--to", "out.safetensors").exit_code == 0


def test_show_says_when_the_file_is_not_the_one_of_the_log(federation: Path) -> None:
    path = federation / "models" / "global" / "1.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    about = json.loads(run("show", "1", "--json").output)
    assert "damaged or another file" in about["file_check"]
    assert about["signature_check"] == "ok", "the signature covers the hash in the log"
    assert "damaged" in run("show", "1").output


def test_show_says_when_the_signature_is_of_another_key(federation: Path) -> None:
    (federation / "state" / "aggregator-main" / "keys" / "main.pem").unlink()
    keys = federation / "state" / "aggregator-main" / "keys"
    assert json.loads(run("show", "1", "--json").output)["signature_check"].startswith("not checked")
    assert not (keys / "main.pem").exists(), "looking must not make a key"
    load_identity(keys, "main")
    assert json.loads(run("show", "1", "--json").output)["signature_check"].startswith("BAD")


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_an_export_holds_every_tensor_and_the_scaling(federation: Path, ending: str) -> None:
    assert run("export", "1", "--to", f"out{ending}").exit_code == 0
    if ending == ".safetensors":
        loaded = load_file("out.safetensors")
    else:
        with np.load("out.npz") as file:
            loaded = dict(file)
    assert set(loaded) == set(ARRAYS)
    np.testing.assert_array_equal(loaded["file"], ARRAYS["file"])
    assert loaded["steps"] == 1
    assert loaded["steps"].shape == ()


def test_a_state_dict_has_the_weights_alone(federation: Path) -> None:
    assert run("export", "latest", "--to", "out.pt").exit_code == 0
    state = torch.load("out.pt", weights_only=True)
    assert set(state) == {"file", "steps"}
    assert state["file"].tolist() == [[1.5, -2.0]]


def test_an_export_replaces_nothing_without_force(federation: Path) -> None:
    Path("out.npz").write_bytes(b"mine")
    assert "--force" in fails(ConfigError, "export", "1", "--to", "out.npz")
    assert Path("out.npz").read_bytes() == b"mine"
    assert run("export", "1", "--to", "out.npz", "--force").exit_code == 0
    assert Path("out.npz").read_bytes() != b"mine"


def test_what_cannot_be_exported_is_said(federation: Path) -> None:
    assert "there are: 0, 1" in fails(DataError, "export", "7", "--to", "out.npz")
    assert "in epoch 2; there are: none" in fails(DataError, "export", "latest", "--epoch", "2", "--to", "out.npz")
    assert ".safetensors, .npz, .pt" in fails(ConfigError, "export", "1", "--to", "out.onnx")
    (federation / "models" / "global" / "1.safetensors").unlink()
    assert "missing" in fails(DataError, "export", "1", "--to", "out.npz")
    (federation / "models" / "global" / "0.safetensors").write_bytes(b"short")
    assert "damaged" in fails(DataError, "export", "0", "--to", "out.npz")
    assert not Path("out.npz").exists()


def test_an_export_makes_no_folder(federation: Path) -> None:
    assert "no folder nosuch/d; make it first" in fails(ConfigError, "export", "1", "--to", "nosuch/d/out.npz")
    assert not Path("nosuch").exists()


def test_of_many_rounds_only_a_few_are_named(federation: Path) -> None:
    rows = open_log(federation / "log" / "floe.sqlite").table("models")
    (first,) = rows.rows_where("round = 0")
    rows.insert_all({**first, "round": number} for number in range(2, 126))
    assert "there are: 0, 1, 2, 3, ..., 122, 123, 124, 125 (or" in fails(DataError, "show", "abc")


@pytest.mark.parametrize("damage", ["noise", "page"])
@pytest.mark.parametrize("arguments", [("list",), ("show", "latest"), ("export", "0", "--to", "out.npz")])
def test_a_damaged_log_is_named_with_the_way_out(federation: Path, damage: str, arguments: tuple[str, ...]) -> None:
    path = federation / "log" / "floe.sqlite"
    with closing(sqlite3.connect(path)) as log:
        log.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    spoiled = {"noise": b"\x9c" * 8192, "page": whole[:4096] + b"\xff" * (len(whole) - 4096)}
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(spoiled[damage])
    assert f"{path}: the log is damaged" in (said := fails(StoreError, *arguments))
    assert "restore a backup" in said


@pytest.mark.parametrize("arguments", [("list",), ("promote", "1")])
def test_a_log_that_is_only_locked_is_not_to_be_moved_away(
    federation: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(models_command, "BUSY_S", 0.05)
    copy = federation / "copy" / "log" / "floe.sqlite"  # which nobody else has open
    copy.parent.mkdir(parents=True)
    monkeypatch.chdir(federation / "copy")
    with closing(sqlite3.connect(federation / "log" / "floe.sqlite")) as db:
        db.execute("VACUUM INTO ?", [str(copy)])
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        said = fails(StoreError, *arguments)
    assert "another program holds the log" in said
    assert "move" not in said
    assert run("list").exit_code == 0


def test_a_log_of_a_newer_floe_is_refused(federation: Path) -> None:
    with closing(sqlite3.connect(federation / "log" / "floe.sqlite")) as db, db:
        db.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('floe', 'm999_new', '')")
    assert "written by a newer Floe (m999_new)" in fails(StoreError, "list")


def test_without_a_log_or_a_model_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no log yet" in fails(StoreError, "list")
    open_log(tmp_path / "log" / "floe.sqlite")
    assert "no global model of lineage 'main' yet" in fails(DataError, "list")


@pytest.mark.parametrize("arguments", [("show", "1", "--json"), ("export", "1", "--to", "out.npz")])
def test_a_pipe_in_the_place_of_a_model_is_not_waited_for(federation: Path, arguments: tuple[str, ...]) -> None:
    path = federation / "models" / "global" / "1.safetensors"
    path.unlink()
    os.mkfifo(path)
    result = run(*arguments)
    assert f"{path}: it is no file" in result.output + str(result.exception)


def test_a_place_that_cannot_be_looked_into_is_refused_by_its_name(federation: Path) -> None:
    place = f"{'x' * 300}/model.npz"
    assert f"--to {place}: {'x' * 300}: File name too long" in fails(ConfigError, "export", "1", "--to", place)
