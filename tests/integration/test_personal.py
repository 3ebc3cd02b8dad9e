"""Layers that stay at home, schemas that differ, a threshold for all: over a broker, with processes that are killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.broker import broker_on, free
from helpers.federation import Federation, Sections
from helpers.kills import Make
from helpers.listening import heard, listening
from helpers.plain import CANARY, Plain

from edge_client.data.folder import read
from floe import weights
from floe.cli import floe
from floe.messages import Round
from floe.plan import Plan
from floe.signing import verify

CANARIES: Sections = {"plan": {"model": "canary", "scaling": "none"}}
FEDPER: Sections = {"plan": {"scaling": "none", "personal": ["bias"], "hidden": [10]}, "rounds": {"count": 3}}
OWN: Sections = {"plan": {"schema": "own", "scaling": "local", "personal": ["weight"]}}
AGREED: Sections = {
    "plan": {"scaling": "none", "threshold": "federated", "threshold_quantile": 0.9},
    "rounds": {"count": 2, "devices": 3},
}
ROWS = {"a": 41, "b": 53, "c": 170}


def devices(federation: Federation, names: str = "ab") -> None:
    federation.aggregator()
    for device in names:
        federation.client(device)


def model_of(federation: Federation, device: str) -> Mapping[str, weights.AnyArray]:
    """What a device keeps for its user."""
    return weights.read(federation.folder / "models" / f"{device}.safetensors")


@pytest.mark.parametrize("personal", [(), ("canary", "bias")])
def test_personal_tensors_are_in_nothing_that_travels(tmp_path: Path, personal: tuple[str, ...]) -> None:
    with broker_on(tmp_path / "broker", free()) as broker:
        federation = Federation(tmp_path / "federation", broker.port, secret=False)
        federation.configure({**CANARIES, "plan": {**CANARIES["plan"], "personal": list(personal)}})
        with listening(federation, tmp_path / "heard"):
            devices(federation)
            federation.finish()
        federation.close()
    chunks = b"".join(payload for topic, payload in heard(tmp_path / "heard") if "/chunk/" in topic)
    assert b'"weight":' in chunks, "weights were to travel, and in plaintext"
    secrets = [CANARY, b'"canary":', b'"bias":', *(model_of(federation, d)["bias"].tobytes() for d in "ab")]
    assert [secret in chunks for secret in secrets[:3]] == [not personal] * 3
    if personal:
        assert not any(secret in chunks for secret in secrets[3:])
        assert set(weights.read(federation.model(2))) == {"weight"}
        assert set(federation.upload("a")) == {"weight"}
        assert model_of(federation, "a")["bias"].tobytes() != model_of(federation, "b")["bias"].tobytes()


def state_of(federation: Federation, device: str) -> dict[str, bytes]:
    """The files with what a device has learned, the user's among them."""
    learned = sorted((federation.folder / "state" / f"device-{device}" / "local").iterdir())
    files = [*learned, federation.folder / "models" / f"{device}.safetensors"]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def fedper(new_federation: Make) -> tuple[dict[int, str], dict[str, bytes]]:
    """Three undisturbed rounds with a personal layer: the models, and what device b has learned."""
    with new_federation("fedper") as federation:
        federation.configure(FEDPER)
        devices(federation)
        federation.finish()
        return federation.models(), state_of(federation, "b")


@pytest.mark.parametrize(
    "step",
    [
        "after rename state/device-b/local/*-*.safetensors in keep #2",
        "in write state/device-b/local/.*-*.safetensors.part in keep #2",
        "after rename state/device-b/outbox/*.json in _pack #3",
        "before ack AnswerTo in _receive #3",
    ],
)
def test_a_device_killed_between_rounds_has_the_same_personal_layers_and_the_models_are_the_same(
    federation: Federation, fedper: tuple[dict[int, str], dict[str, bytes]], step: str
) -> None:
    federation.configure(FEDPER)
    federation.aggregator()
    federation.client("a")
    killed = federation.client("b", by=("helpers.killer", "kill", step, "--"))
    assert killed.wait() == -signal.SIGKILL
    federation.client("b")
    federation.finish()
    assert federation.models() == fedper[0]
    assert state_of(federation, "b") == fedper[1]


def test_devices_with_other_features_share_the_rest_of_a_model(federation: Federation) -> None:
    federation.configure(OWN)
    federation.features("a", names=("age", "sex", "region"))
    federation.features("b", names=("job", "balance", "day", "month", "campaign"))
    devices(federation)
    federation.finish()
    found = federation.query("SELECT outcome FROM updates WHERE task != 'init'")
    assert [row["outcome"] for row in found] == ["accepted"] * 6
    assert federation.query("SELECT schema FROM federations") == [{"schema": None}]
    layout = weights.read_layout_of(federation.model(2))
    assert ([t.name for t in layout.tensors], dict(layout.metadata)) == (["bias"], {})
    assert [len(model_of(federation, device)["weight"]) for device in "ab"] == [3, 5]
    shown = managed(federation, "models", "show", "latest")
    assert "schema           none: each device has its own" in shown
    assert managed(federation, "models", "list").count("\n") >= 3
    managed(federation, "models", "export", "latest", "--to", str(federation.folder / "out.npz"))
    assert np.load(federation.folder / "out.npz").files == ["bias"]


def test_the_global_model_and_the_devices_own_stand_in_the_log_beside_each_other(federation: Federation) -> None:
    federation.configure(FEDPER)
    devices(federation)
    federation.finish()
    for device in "ab":
        trained, evaluated = federation.query(
            "SELECT * FROM updates WHERE device = ? AND round = 3 AND task IN ('train', 'evaluate') ORDER BY id", device
        )
        figures = ("loss", "accuracy", "roc_auc")
        assert [evaluated[name] for name in figures] == [trained[name] for name in figures]
        assert evaluated["base_loss"] not in (None, trained["base_loss"], evaluated["loss"])


def test_all_devices_have_the_threshold_that_their_histograms_come_to(federation: Federation, tmp_path: Path) -> None:
    federation.configure(AGREED)
    for device, rows in ROWS.items():
        federation.features(device, rows=rows)
    with listening(federation, tmp_path / "heard"):
        devices(federation, "abc")
        federation.finish()
    (agreed,) = (row["threshold"] for row in federation.query("SELECT * FROM rounds WHERE threshold IS NOT NULL"))
    evaluated = federation.query("SELECT device, threshold FROM updates WHERE task = 'evaluate' ORDER BY device")
    assert evaluated == [{"device": device, "threshold": agreed} for device in ROWS]
    for device in ROWS:
        about = json.loads((federation.folder / "models" / f"{device}.json").read_text())
        assert about["report"]["threshold"] == agreed
    assert agreed == pytest.approx(np.quantile(errors(federation), 0.9), rel=0.091)
    told = [verify(payload, Round) for topic, payload in heard(tmp_path / "heard") if topic.endswith("/main/round")]
    assert {(one.phase.task, one.threshold) for one in told if one.threshold} == {("evaluate", agreed)}
    chain = federation.query("SELECT task FROM rounds ORDER BY opened_at, rowid")
    assert [row["task"] for row in chain] == ["init", "train", "train", "threshold", "evaluate"]


def errors(federation: Federation) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Those of the last model on the training rows of all devices."""
    base, plan = weights.read(federation.model(2)), Plan(model="plain")
    trainers = [Plain(read(federation.folder / "features" / device), plan) for device in ROWS]
    return np.concatenate([trainer.errors(base) for trainer in trainers])


def test_an_aggregator_killed_as_it_agrees_comes_to_the_same_threshold(federation: Federation) -> None:
    federation.configure(AGREED)
    for device, rows in ROWS.items():
        federation.features(device, rows=rows)
    by = ("helpers.killer", "kill", "before commit rounds, models in close_round #2", "--")
    killed = federation.aggregator(by=by)
    for device in ROWS:
        federation.client(device)
    assert killed.wait() == -signal.SIGKILL
    assert federation.query("SELECT * FROM rounds WHERE threshold IS NOT NULL") == []
    federation.aggregator()
    federation.finish()
    (agreed,) = (row["threshold"] for row in federation.query("SELECT * FROM rounds WHERE threshold IS NOT NULL"))
    assert agreed == pytest.approx(np.quantile(errors(federation), 0.9), rel=0.091)


def test_a_device_with_too_few_rows_for_a_histogram_has_the_threshold_of_the_others(federation: Federation) -> None:
    federation.configure({**AGREED, "plan": {**AGREED["plan"], "min_rows": 50}})
    for device, rows in ROWS.items():
        federation.features(device, rows=rows)
    devices(federation, "abc")
    federation.finish()
    (refused,) = federation.query("SELECT * FROM updates WHERE outcome = 'rejected'")
    assert (refused["device"], refused["task"]) == ("a", "threshold")
    assert "41 training rows are too few" in refused["detail"]
    rows = federation.query("SELECT threshold FROM updates WHERE task = 'evaluate'")
    assert len(rows) == 3
    assert len({row["threshold"] for row in rows} - {None}) == 1


def managed(federation: Federation, *arguments: str) -> str:
    result = CliRunner().invoke(floe, [*arguments, "--config", str(federation.folder / "floe.toml")])
    assert result.exit_code == 0, result.output
    return result.output
