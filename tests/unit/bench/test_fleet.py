"""A fleet's shares, its table, and what does not count as a run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from bench.fleet import A_PROCESS, Fleet, shares
from bench.fleet_figures import COLUMNS, fleet_lines, fleet_result
from bench.folder import Settings
from bench.links import DESCRIPTORS, allow_descriptors
from bench.usage import cpu_seconds, only_child, peak_bytes
from floe.errors import BrokerError, IncompleteError

SETTINGS = Settings(3, 1000, 2, "chacha20-poly1305")


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"round": number, "accepted": 3, "in_hands": 3, "sha256": "f" * 64, "close_seconds": 2.0 * number,
            "seconds": 3.0 * number, "aggregator_cpu_seconds": 0.5, "aggregator_peak_mb": 60.25, **changes}  # fmt: skip


def fleet(*rows: dict[str, Any]) -> Fleet:
    return Fleet(list(rows), 61_500_000, 4.5, 8_250_000, 0.75)


@pytest.mark.parametrize("devices", [1, 2, 3, 20, 999, 1000, 10_000])
@pytest.mark.parametrize("cores", [1, 2, 64])
def test_every_device_is_in_one_process_and_no_process_is_too_full(devices: int, cores: int) -> None:
    found = shares(devices, cores)
    assert [number for first, count in found for number in range(first, first + count)] == [*range(1, devices + 1)]
    assert all(0 < count <= A_PROCESS for _, count in found)
    assert len(found) >= min(cores, devices)


def test_the_table_has_every_figure_and_the_medians_leave_the_first_round_out() -> None:
    result = fleet_result(SETTINGS, fleet(row(1), row(2)))
    assert (result["close_seconds"], result["seconds"], result["devices"]) == (4.0, 6.0, 3)
    text = "\n".join(fleet_lines(result))
    for shown in ("3 simulated devices, 4.1 kB", *COLUMNS.values(), "60.25", "61.5 MB", "8.2 MB", "4.5 s", "0.8 s"):
        assert shown in text, shown


@pytest.mark.parametrize(
    ("rows", "said"),
    [([row(1), row(2, accepted=2)], "round 2: 2 updates"), ([row(1, in_hands=2), row(2)], "round 1: .* 2 devices"),
     ([row(1)], "1 of 2 rounds")],
)  # fmt: skip
def test_a_run_counts_only_if_every_device_had_its_part(rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(IncompleteError, match=said):
        fleet_result(SETTINGS, fleet(*rows))


def test_too_many_links_are_refused_with_the_limit() -> None:
    with pytest.raises(BrokerError, match=f"{10**9 * DESCRIPTORS + 100} open files"):
        allow_descriptors(10**9)


def test_what_a_process_has_used_is_read_from_the_kernel() -> None:
    before, block = cpu_seconds(os.getpid()), bytearray(b"x") * 30_000_000
    assert peak_bytes(os.getpid()) > len(block)
    while cpu_seconds(os.getpid()) == before:
        sum(range(10_000))


def test_the_process_that_a_process_started_is_found() -> None:
    inner = "import os; print(os.getpid(), flush=True); input()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        found = int(child.stdout.readline())
        assert only_child(child.pid) == found
        with pytest.raises(ValueError):
            only_child(found)  # it has none
        child.communicate(b"\n")
