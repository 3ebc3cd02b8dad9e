"""Telemetry: what it may say, and what this machine says."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from floe.telemetry import Line, Telemetry, Vitals
from floe.vitals import Sampler

LINE = {"age_s": 0.0, "level": "info", "text": "a"}
Counters = namedtuple("Counters", ["bytes_sent", "bytes_recv"])
Sensor = namedtuple("Sensor", ["current"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_percent": 100.1},
        {"cpu_percent": -0.1},
        {"memory_percent": float("nan")},
        {"sent_bytes_s": float("inf")},
        {"process_bytes": 1.5},
        {"disk_free_bytes": -1},
        {"disk_free_bytes": 2**53},
        {"temperature_c": 1e9},
        {"uptime_s": -1.0},
        {"model_sha256": "A" * 64},
        {"dropped": -1},
        {"lines": [LINE] * 101},
        {"lines": [LINE | {"text": "a" * 501}]},
        {"lines": [LINE | {"level": "debug"}]},
        {"lines": [LINE | {"age_s": -1.0}]},
        {"lines": [LINE | {"device": "b"}]},
        {"failure": ""},
    ],
)
def test_what_is_out_of_bounds_is_no_telemetry(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Telemetry)


def test_nothing_at_all_and_as_much_as_there_may_be_are_telemetry() -> None:
    assert msgspec.convert({}, Telemetry) == Telemetry()
    full = msgspec.convert({"cpu_percent": 100, "lines": [LINE | {"text": "a" * 500}] * 100}, Telemetry)
    assert full.lines[99] == Line(0.0, "info", "a" * 500)


def test_a_sample_of_this_machine_is_within_the_bounds_that_are_checked(tmp_path: Path) -> None:
    sample = Sampler(tmp_path).sample(retries=3, model_sha256="a" * 64)
    assert msgspec.convert(msgspec.to_builtins(sample), Vitals) == sample
    assert (sample.retries, sample.model_sha256) == (3, "a" * 64)
    assert sample.process_bytes is not None
    assert sample.process_bytes > 1_000_000


def test_rates_are_those_since_the_sample_before_and_without_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments, counted = iter([10.0, 12.0, 13.0]), iter([(100, 50), (300, 50), (0, 0)])

    def counters(pernic: bool) -> dict[str, Counters]:
        return {"lo": Counters(10**9, 10**9), "eth0": Counters(*next(counted))}

    monkeypatch.setattr(psutil, "net_io_counters", counters)
    sampler = Sampler(tmp_path, clock=lambda: next(moments))
    rates = [(sample.sent_bytes_s, sample.received_bytes_s) for sample in (sampler.sample() for _ in range(3))]
    assert rates == [(None, None), (100.0, 0.0), (None, None)], "unknown at first, and when a counter began anew"


def test_the_temperature_is_the_hottest_of_the_processor_without_what_no_processor_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = {"nvme": [Sensor(70.0)], "cpu_thermal": [Sensor(48.0), Sensor(51.5), Sensor(65261.8)]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert Sampler(tmp_path).sample().temperature_c == 51.5
    del sensors["cpu_thermal"]
    assert Sampler(tmp_path).sample().temperature_c == 70.0


def test_what_a_machine_cannot_tell_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise FileNotFoundError("/proc/nothing")

    for name in ("cpu_percent", "virtual_memory", "disk_usage", "net_io_counters", "Process", "sensors_temperatures"):
        monkeypatch.setattr(psutil, name, fail, raising=False)
    sample = Sampler(tmp_path).sample()
    assert sample.uptime_s is not None
    assert sample == Vitals(uptime_s=sample.uptime_s)
