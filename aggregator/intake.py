"""What the aggregator accepts: the rules for a manifest, and for the weights that it brought.

Each function returns or raises `Refused`; nothing is reserved before `check_manifest` has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from floe import weights
from floe.decode import decode_update
from floe.encoding import is_encoded
from floe.errors import Refused
from floe.files import fault_of
from floe.messages import Core, Manifest, Phase
from floe.personal import is_personal
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema
from floe.soundness import least_updates
from floe.threshold import BINS
from floe.topics import DeviceManifest, DeviceTelemetry
from floe.transfer import check_core

HEADER_ROOM = weights.MAX_HEADER_BYTES + 8
SUMS = {"sums.count": "I64", "sums.mean": "F64", "sums.m2": "F64"}


@dataclass(frozen=True)
class Expectation:
    """What an update of the open phase must look like. `layout` and `base_file` are None while there is no model."""

    phase: Phase
    base: str
    plan: Plan
    layout: weights.Layout | None
    schema: Schema | None
    max_bytes: int
    base_file: Path | None = None


def check_manifest(manifest: Manifest, topic: DeviceManifest, expected: Expectation) -> None:
    """The manifest of an update for the open phase, its topic, its sizes."""
    core = manifest.core
    if (core.federation, core.sender, core.kind) != (manifest.federation, manifest.sender, "update"):
        raise Refused("malformed", "the core speaks of another federation, sender or kind than its manifest")
    if (core.lineage, core.round) != (topic.lineage, topic.round):
        raise Refused("malformed", f"the topic says round {topic.round}, the manifest {core.round}")
    if manifest.envelope.to != expected.phase.lineage:
        raise Refused("not-for-us", f"sealed for {manifest.envelope.to!r}, this is {expected.phase.lineage!r}")
    if core.phase != expected.phase:
        raise Refused("round", f"{_words(core.phase)}, open is {_words(expected.phase)}")
    if core.base != expected.base:
        raise Refused("base", f"made from {core.base[:12] or 'nothing'}, the round starts from {expected.base[:12]}")
    check_core(core, _cap(expected))


def check_telemetry(manifest: Manifest, topic: DeviceTelemetry, epoch: int) -> None:
    """A device's telemetry for the epoch that is, and its topic; who may have sealed it has been checked."""
    core = manifest.core
    if (core.federation, core.sender, core.kind) != (manifest.federation, manifest.sender, "telemetry"):
        raise Refused("malformed", "the core speaks of another federation, sender or kind than its manifest")
    if core.lineage != topic.lineage:
        raise Refused("malformed", f"the topic says lineage {topic.lineage!r}, the manifest {core.lineage!r}")
    if manifest.envelope.to != topic.lineage:
        raise Refused("not-for-us", f"sealed for {manifest.envelope.to!r}, this is {topic.lineage!r}")
    if core.epoch != epoch:
        raise Refused("round", f"telemetry of epoch {core.epoch}, this is {epoch}")
    if core.base:
        raise Refused("base", "telemetry that says which model it was made from")
    check_core(core, 0)


def check_report(report: Report, core: Core, plan: Plan) -> None:
    """Metrics that go with what was sent."""
    if report.failure:
        raise Refused("device", report.failure)
    sends = core.task in ("sums", "init") or (core.task == "train" and plan.report == "weights")
    if core.size and not sends:
        raise Refused("weights", f"{core.size} bytes of weights, where a report alone was asked for")
    if core.task in ("sums", "init") and not core.size:
        raise Refused("weights", f"task {core.task} without what it asks for")
    if core.task == "train" and not core.size and plan.report == "weights" and least_updates(plan) > 1:
        raise Refused("weights", f'rule "{plan.rule}" needs weights of all: set [device] report, or rule = "median"')
    if core.task == "threshold":
        _check_histogram(report, plan)
    elif report.histogram:
        raise Refused("metrics", f"a histogram of errors, which task {core.task} does not ask for")
    if core.task in ("train", "evaluate") and report.before is None and report.after is None:
        raise Refused("metrics", "neither the model before nor the one after training was measured")
    if core.task == "train" and core.size and report.samples < 1:
        raise Refused("metrics", "weights that were trained on no rows")


def is_coded(core: Core, plan: Plan) -> bool:
    """Whether the weights of an update come encoded: trained ones, where the plan asks for it."""
    return core.task == "train" and plan.upload != "weights"


def decode(path: Path, expected: Expectation, out: Path) -> str:
    """Write what an encoded update stands for, full weights, which are still to be checked; the SHA-256 of them.

    Raises `Refused`: `weights`; `storage`, if the disk has damaged the model that it was made from. `StoreError`.
    """
    if expected.base_file is None or expected.layout is None or expected.plan.upload == "weights":
        raise Refused("weights", "encoded, and there is no model that it could be the difference to")
    if fault := fault_of(expected.base_file, expected.base):
        raise Refused("storage", f"{expected.base_file}: {fault}; an update that started from it cannot be decoded")
    coding = expected.plan.upload
    return decode_update(path, out, base=expected.base_file, layout=expected.layout, coding=coding)


def check_weights(path: Path, core: Core, expected: Expectation) -> Schema | None:
    """The file of an update, decoded if it came encoded: layout, finite numbers, schema.

    Returns its schema; None: each device has its own.
    """
    if is_encoded(path):
        raise Refused("weights", "encoded, which the plan does not ask for")
    layout = weights.check_numbers(path)
    schema = None if expected.plan.schema == "own" else Schema.from_json(layout.metadata.get("schema", "{}"))
    if schema and expected.schema and (difference := schema.difference(expected.schema)):
        raise Refused("schema", difference)
    if core.task == "sums":
        _check_sums(path, layout, schema, expected.plan)
    elif core.task == "init":
        _check_first(layout, expected.plan)
    elif expected.layout is not None and (difference := layout.difference(expected.layout)):
        raise Refused("weights", difference)
    return schema


def trainable(layout: weights.Layout) -> weights.Layout:
    """A global model's layout without its scaling, which no device changes: what an update must look like."""
    tensors: list[weights.Tensor] = []
    for t in layout.tensors:
        if not t.name.startswith("scaling."):
            start = tensors[-1].stop if tensors else 0
            tensors.append(weights.Tensor(t.name, t.dtype, t.shape, start, start + t.stop - t.start))
    return weights.Layout(tuple(tensors))


def _cap(expected: Expectation) -> int:
    if expected.layout is None:
        return expected.max_bytes
    return min(expected.max_bytes, expected.layout.data_bytes + HEADER_ROOM)


def _check_first(layout: weights.Layout, plan: Plan) -> None:
    if not layout.tensors or any(t.name.startswith("scaling.") for t in layout.tensors):
        raise Refused("weights", "a first model needs tensors, none of them named scaling.*")
    if personal := [t.name for t in layout.tensors if is_personal(t.name, plan.personal)]:
        raise Refused("weights", f"{personal[0]} is personal by the plan, and never leaves a device")


def _check_histogram(report: Report, plan: Plan) -> None:
    histogram = report.histogram
    if len(histogram) != BINS:
        raise Refused("metrics", f"a histogram of errors has {BINS} numbers, this one {len(histogram)}")
    if sum(histogram) != report.samples:
        raise Refused("metrics", f"a histogram of the errors of {sum(histogram)} rows, of {report.samples} trained on")
    if sum(histogram) < plan.min_rows:
        asked = f"the plan asks for {plan.min_rows}"
        raise Refused("too-few-rows", f"a histogram of the errors of {sum(histogram)} rows, {asked}")


def _check_sums(path: Path, layout: weights.Layout, schema: Schema | None, plan: Plan) -> None:
    if schema is None:
        raise Refused("schema", "sums need one schema, and each device has its own")
    codes = {t.name: weights.CODES[t.dtype] for t in layout.tensors}
    shapes = {t.name: t.shape for t in layout.tensors}
    if codes != SUMS or shapes != {"sums.count": (1,), "sums.mean": schema.shape, "sums.m2": schema.shape}:
        raise Refused("weights", f"sums need {', '.join(SUMS)} of shape {schema.shape}")
    arrays = weights.read(path)
    if arrays["sums.count"][0] < plan.min_rows:
        raise Refused("too-few-rows", f"sums over {arrays['sums.count'][0]} rows, the plan asks for {plan.min_rows}")
    if (arrays["sums.m2"] < 0).any():
        raise Refused("weights", "sums.m2 is negative")


def _words(phase: Phase) -> str:
    return f"{phase.task} {phase.round} (epoch {phase.epoch})"
