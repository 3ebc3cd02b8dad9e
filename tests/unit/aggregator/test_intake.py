"""What the aggregator accepts: one rule broken at a time, each with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.wire import ANN, PHASE, core

from aggregator.intake import SUMS, Expectation, check_manifest, check_report, check_weights, trainable
from floe import messages as m
from floe import weights
from floe.errors import Refused
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.schema import Schema
from floe.topics import DeviceManifest

SCHEMA = Schema((2,), 2)
MODEL = {"scaling.mean": np.zeros(2), "w": np.zeros((1, 2), "<f4")}
LAYOUT = trainable(weights.layout_of(MODEL))
EXPECTED = Expectation(PHASE, "b" * 64, Plan(min_rows=10), LAYOUT, SCHEMA, 1_000)
METRICS = Metrics(loss=0.5, accuracy=1.0)


def _check(to: str = "main", topic_round: int = 3, **changes: Any) -> None:
    manifest = m.Manifest(
        federation="floe", sender="ann", key=ANN.key, proof="", seq=1, core=core(**changes),
        envelope=m.Envelope(to=to, wrap="none", key=""),
    )  # fmt: skip
    check_manifest(manifest, DeviceManifest("floe", "ann", "main", topic_round), EXPECTED)


def test_a_manifest_that_fits_the_open_phase_passes() -> None:
    _check()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"federation": "other"}, "malformed"),
        ({"sender": "bob"}, "malformed"),
        ({"kind": "model"}, "malformed"),
        ({"kind": "telemetry"}, "malformed"),
        ({"lineage": "other"}, "malformed"),
        ({"topic_round": 4}, "malformed"),
        ({"to": "other"}, "not-for-us"),
        ({"to": "*"}, "not-for-us"),
        ({"round": 4, "topic_round": 4}, "round"),
        ({"epoch": 2}, "round"),
        ({"task": "evaluate"}, "round"),
        ({"base": "c" * 64}, "base"),
        ({"base": ""}, "base"),
        ({"size": 1001}, "oversized"),
        ({"chunk_size": 3}, "malformed"),
        ({"chunks": []}, "malformed"),
    ],
)
def test_a_manifest_that_breaks_one_rule_is_refused_for_it(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        _check(**change)
    assert refusal.value.reason == reason


def test_an_update_of_a_known_model_may_not_be_larger_than_the_model_and_a_header() -> None:
    roomy = msgspec.structs.replace  # the cap of the configuration is far away here
    expected = Expectation(PHASE, "b" * 64, Plan(), LAYOUT, SCHEMA, 10**12)
    cap = LAYOUT.data_bytes + weights.MAX_HEADER_BYTES + 8
    size = cap + 1
    large = core(size=size, chunks=["0" * 64] * -(-size // 65_536))
    manifest = m.Manifest(
        federation="floe", sender="ann", key=ANN.key, proof="", seq=1, core=large,
        envelope=m.Envelope(to="main", wrap="none", key=""),
    )  # fmt: skip
    topic = DeviceManifest("floe", "ann", "main", 3)
    with pytest.raises(Refused, match=f"oversized: {size} bytes, at most {cap} accepted"):
        check_manifest(manifest, topic, expected)
    check_manifest(roomy(manifest, core=roomy(large, size=cap)), topic, expected)


@pytest.mark.parametrize(
    ("report", "task", "size", "reason"),
    [
        (Report(failure="no rows"), "train", 0, "device"),
        (Report(samples=1, after=METRICS), "evaluate", 3, "weights"),
        (Report(), "sums", 0, "weights"),
        (Report(), "init", 0, "weights"),
        (Report(samples=1), "train", 3, "metrics"),
        (Report(after=METRICS), "train", 3, "metrics"),
        (Report(), "evaluate", 0, "metrics"),
        (Report(before=METRICS, histogram=(10,)), "evaluate", 0, "metrics"),
        (Report(histogram=(10,) * 511), "threshold", 0, "metrics"),
        (Report(samples=9, histogram=(9, *[0] * 511)), "threshold", 0, "too-few-rows"),
        (Report(samples=10, histogram=(11, *[0] * 511)), "threshold", 0, "metrics"),
        (Report(samples=512, histogram=(1,) * 512), "threshold", 3, "weights"),
        (Report(before=METRICS), "threshold", 0, "metrics"),
    ],
)
def test_a_report_that_does_not_go_with_what_was_sent_is_refused(
    report: Report, task: str, size: int, reason: str
) -> None:
    with pytest.raises(Refused) as refusal:
        check_report(report, core(task=task, size=size), Plan())
    assert refusal.value.reason == reason


def test_reports_that_go_with_what_was_sent_pass() -> None:
    check_report(Report(samples=1, after=METRICS), core(), Plan())
    check_report(Report(before=METRICS), core(task="evaluate", size=0), Plan())
    check_report(Report(), core(task="sums"), Plan())
    check_report(Report(samples=10, histogram=(10, *[0] * 511)), core(task="threshold", size=0), Plan())


def test_weights_are_refused_where_the_plan_asks_for_accuracy_alone() -> None:
    with pytest.raises(Refused, match="weights: 3 bytes of weights, where a report alone was asked for"):
        check_report(Report(samples=1, after=METRICS), core(), Plan(report="accuracy"))


@pytest.mark.parametrize("rule", ["trimmed-mean", "krum", "multi-krum"])
def test_a_report_alone_is_no_update_for_a_rule_that_needs_several(rule: str) -> None:
    alone, trained = Report(samples=1, after=METRICS), core(size=0)
    with pytest.raises(Refused, match=f'weights: rule "{rule}" needs weights of all: set \\[device\\] report'):
        check_report(alone, trained, Plan(rule=rule, byzantine=1))
    for plan in (Plan(), Plan(rule="median"), Plan(rule=rule, byzantine=1, report="accuracy")):
        check_report(alone, trained, plan)


def _file(folder: Path, arrays: dict[str, Any], schema: Schema = SCHEMA) -> Path:
    weights.write(folder / "u", arrays, {"schema": schema.to_json()})
    return folder / "u"


def _sums(**changes: Any) -> dict[str, Any]:
    return {"sums.count": np.array([10]), "sums.mean": np.zeros(2), "sums.m2": np.ones(2)} | changes


def test_a_first_model_with_a_personal_tensor_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, {"bn.running_mean": np.ones(2, "<f4"), "w": np.ones(2, "<f4")})
    expected = replace(EXPECTED, plan=Plan(personal=("*bn*",)))
    with pytest.raises(Refused, match=r"weights: bn\.running_mean is personal by the plan, and never leaves a device"):
        check_weights(path, core(task="init"), expected)


def test_where_each_device_has_a_schema_of_its_own_none_is_read_and_the_layout_still_has_to_fit(tmp_path: Path) -> None:
    own = replace(EXPECTED, plan=Plan(schema="own", scaling="local", personal=("v",)), schema=None)
    weights.write(tmp_path / "u", {"w": np.ones((1, 2), "<f4")}, {"schema": "no schema"})
    assert check_weights(tmp_path / "u", core(), own) is None
    with pytest.raises(Refused, match="schema: sums need one schema"):
        check_weights(_file(tmp_path, _sums()), core(task="sums"), own)
    with pytest.raises(Refused, match="weights: "):
        check_weights(_file(tmp_path, {"w": np.ones((1, 3), "<f4")}), core(), own)


def test_weights_that_fit_pass_and_give_their_schema(tmp_path: Path) -> None:
    assert check_weights(_file(tmp_path, {"w": np.ones((1, 2), "<f4")}), core(), EXPECTED) == SCHEMA
    assert check_weights(_file(tmp_path, _sums()), core(task="sums"), EXPECTED) == SCHEMA
    assert check_weights(_file(tmp_path, {"w": np.ones(5, "<f4")}), core(task="init"), EXPECTED) == SCHEMA


@pytest.mark.parametrize(
    ("arrays", "task", "reason"),
    [
        ({"w": np.ones((2, 1), "<f4")}, "train", "weights"),
        ({"w": np.ones((1, 2), "<f8")}, "train", "weights"),
        ({}, "train", "weights"),
        ({"w": np.ones((1, 2), "<f4"), "x": np.ones(1)}, "train", "weights"),
        (MODEL, "train", "weights"),
        ({"w": np.full((1, 2), np.nan, "<f4")}, "train", "weights"),
        ({}, "init", "weights"),
        (MODEL, "init", "weights"),
        (_sums(**{"sums.count": np.array([9])}), "sums", "too-few-rows"),
        (_sums(**{"sums.count": np.array([10.0])}), "sums", "weights"),
        (_sums(**{"sums.mean": np.zeros(3)}), "sums", "weights"),
        (_sums(**{"sums.m2": np.array([1.0, -1.0])}), "sums", "weights"),
        (_sums(more=np.zeros(1)), "sums", "weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, arrays: Any, task: str, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_weights(_file(tmp_path, arrays), core(task=task), EXPECTED)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("schema", [Schema((3,), 2), Schema((2,), 3), Schema((2,), 2, ("a", "b"))])
def test_another_schema_than_the_federations_is_refused(tmp_path: Path, schema: Schema) -> None:
    with pytest.raises(Refused) as refusal:
        check_weights(_file(tmp_path, {"w": np.ones((1, 2), "<f4")}, schema), core(), EXPECTED)
    assert refusal.value.reason == "schema"


def test_a_file_without_a_schema_is_refused(tmp_path: Path) -> None:
    weights.write(tmp_path / "u", {"w": np.ones((1, 2), "<f4")})
    with pytest.raises(Refused, match="schema: unreadable schema"):
        check_weights(tmp_path / "u", core(), EXPECTED)


def test_the_tensors_of_the_sums_are_those_of_the_contract() -> None:
    assert SUMS == {"sums.count": "I64", "sums.mean": "F64", "sums.m2": "F64"}
