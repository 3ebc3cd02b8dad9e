"""What the demo decides and writes before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from demo import folder as demo_folder
from demo.command import demo
from demo.folder import Settings
from demo.presets import PRESETS
from edge_client.data.command import split_command
from floe.errors import ConfigError, DataError, FloeError, IncompleteError

DEFAULT = Settings(
    source="digits", clients=None, rounds=5, partition="iid", alpha=None, rows=None, seed=3, model=None,
    report="weights", suite="auto",
)  # fmt: skip


def write_features(folder: Path, shape: tuple[int, ...], labels: list[int]) -> Path:
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        np.save(folder / f"{part}_x.npy", np.zeros((len(labels), *shape), np.float32))
        np.save(folder / f"{part}_y.npy", np.array(labels))
    return folder


def test_the_plan_of_a_named_data_set_is_its_own_with_the_seed(tmp_path: Path) -> None:
    plan = demo_folder.plan_for(DEFAULT, tmp_path)
    assert plan.model == PRESETS["digits"].model
    assert plan.seed == 3


def test_another_model_does_not_keep_the_widths_of_the_first(tmp_path: Path) -> None:
    plan = demo_folder.plan_for(replace(DEFAULT, source="breast-cancer", model="mlp"), tmp_path)
    assert (plan.model, plan.hidden) == ("mlp", ())


@pytest.mark.parametrize(
    ("shape", "labels", "model"), [((4,), [0, 1], "autoencoder"), ((4,), [0, 2], "mlp"), ((1, 8, 8), [0, 1], "cnn")]
)
def test_a_folder_gets_a_model_that_fits_its_features(
    tmp_path: Path, shape: tuple[int, ...], labels: list[int], model: str
) -> None:
    features = write_features(tmp_path / "a", shape, labels)
    assert demo_folder.plan_for(replace(DEFAULT, source=str(tmp_path)), features).model == model


def test_features_that_are_no_arrays_are_named(tmp_path: Path) -> None:
    (tmp_path / "train_x.npy").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be read as features"):
        demo_folder.plan_for(replace(DEFAULT, source=str(tmp_path)), tmp_path)


def test_sub_folders_with_features_are_devices_by_their_names(tmp_path: Path) -> None:
    for name in ("insurance", "bank"):
        write_features(tmp_path / name, (2,), [0, 1])
    (tmp_path / "notes").mkdir()
    folder = replace(DEFAULT, source=str(tmp_path))
    assert demo_folder.own_devices(folder) == {"bank": tmp_path / "bank", "insurance": tmp_path / "insurance"}
    assert list(demo_folder.own_devices(replace(folder, clients=1))) == ["bank"]
    with pytest.raises(DataError, match="holds 2 devices, --clients asks for 3"):
        demo_folder.own_devices(replace(folder, clients=3))


def test_a_sub_folder_whose_name_no_device_can_have_is_named(tmp_path: Path) -> None:
    write_features(tmp_path / "My Bank", (2,), [0, 1])
    with pytest.raises(DataError, match=r"My Bank.*rename"):
        demo_folder.own_devices(replace(DEFAULT, source=str(tmp_path)))


def test_a_folder_with_one_data_set_is_divided(tmp_path: Path) -> None:
    write_features(tmp_path / "one", (2,), [0, 1])
    settings = replace(DEFAULT, source=str(tmp_path / "one"), rows=7)
    assert demo_folder.own_devices(settings) == {}
    arguments = settings.split_arguments(4)
    assert arguments[:4] == ["data", "split", "--data", str(tmp_path / "one")]
    assert arguments[-2:] == ["--rows", "7"]


@pytest.mark.parametrize(("given", "words", "title"), [
    ({}, "--partition iid", "digits, iid, 5"),
    ({"partition": "quantity"}, "--partition quantity", "digits, quantity 0.5, 5"),
    ({"partition": "dirichlet", "alpha": 0.1}, "--partition dirichlet --alpha 0.1", "digits, dirichlet 0.1, 5"),
    ({"partition": "column", "by": "site"}, "--partition column --by site", "digits, by site, 5"),
])  # fmt: skip
def test_the_division_that_was_chosen_is_the_one_that_is_made(given: dict[str, Any], words: str, title: str) -> None:
    settings = replace(DEFAULT, **given)
    expected = f"data split --data digits --clients 2 {words} --seed 3 --out features"
    assert " ".join(settings.split_arguments(2)) == expected
    assert title in settings.title


@pytest.mark.parametrize("given", [{"alpha": 0.5}, {"by": "site"}, {"partition": "column"}])
def test_a_division_that_cannot_be_is_refused_before_anything_runs(given: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"--alpha 0\.5: iid|--by site: iid|by which"):
        replace(DEFAULT, **given)


def test_the_demo_offers_what_the_split_offers_but_data_that_comes_divided() -> None:
    (offered,) = (one.type for one in demo.params if one.name == "partition")
    (split,) = (one.type for one in split_command.params if one.name == "how")
    assert isinstance(offered, click.Choice)
    assert isinstance(split, click.Choice)
    assert [*offered.choices, "natural"] == list(split.choices)


def test_the_folder_of_a_run_must_be_its_own(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    for taken in ("full", "file"):
        with (
            pytest.raises(ConfigError, match="not an empty folder"),
            demo_folder.run_folder(tmp_path / taken, DEFAULT),
        ):
            pass
    assert (tmp_path / "full" / "x").exists()
    with demo_folder.run_folder(tmp_path / "new", DEFAULT) as folder:
        (folder / "log").mkdir()
    assert (tmp_path / "new" / "log").is_dir()


def fail(out: Path | None, error: type[FloeError]) -> None:
    """A run that has written something when it ends with this error."""
    with demo_folder.run_folder(out, DEFAULT) as folder:
        (folder / "logs").mkdir()
        raise error("no")


@pytest.mark.parametrize(("error", "left"), [(DataError, []), (ConfigError, []), (IncompleteError, ["new", "runs"])])
def test_a_run_that_bad_input_ends_leaves_no_folder_and_one_that_learned_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[FloeError], left: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (None, Path("new")):
        with pytest.raises(error):
            fail(out, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_an_empty_folder_of_the_users_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fail(tmp_path, DataError)
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_the_run_is_named_after_data_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with demo_folder.run_folder(None, DEFAULT) as folder:
        assert folder.parent == tmp_path / "runs"
        assert folder.name.startswith("digits-")


def test_flags_hold_against_the_environment_and_the_environment_against_the_plan(tmp_path: Path) -> None:
    values = demo_folder.decided(DEFAULT, port=4711, devices=3)
    around = {"FLOE_MQTT_PORT": "1", "FLOE_PLAN_SEED": "9", "FLOE_PLAN_EPOCHS": "7", "FLOE_CONFIG": "x", "HOME": "/h"}
    environ = demo_folder.environment(values, around)
    config = demo_folder.write(tmp_path, values, demo_folder.plan_for(DEFAULT, tmp_path), environ)
    assert (config.mqtt.port, config.plan.seed, config.plan.epochs, config.rounds.devices) == (4711, 3, 7, 3)
    assert environ["HOME"] == "/h"
    assert config.folder == tmp_path


def test_a_variable_that_nothing_knows_is_refused_before_anything_runs(tmp_path: Path) -> None:
    values = demo_folder.decided(DEFAULT, port=4711, devices=3)
    environ = demo_folder.environment(values, {"FLOE_PLAN_EPOCH": "7"})
    with pytest.raises(ConfigError, match="FLOE_PLAN_EPOCH"):
        demo_folder.write(tmp_path, values, PRESETS["digits"], environ)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (DEFAULT, False),
        (replace(DEFAULT, suite="plaintext"), False),
        (replace(DEFAULT, suite="fernet"), True),
        (replace(DEFAULT, shared_key=True), True),
    ],
)
def test_a_shared_key_is_made_where_devices_are_sealed_and_not_enrolled(
    tmp_path: Path, settings: Settings, key: bool
) -> None:
    demo_folder.write_key(tmp_path, settings)
    assert (tmp_path / "secret.key").exists() == key
    assert settings.enrols == (not key and settings.suite != "plaintext")
