"""`floe bench` as a user runs it: small, with the figures looked at and no time asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOE_")}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "floe", "bench", *arguments, "--json"], cwd=folder,
        env={**environment, "PYTHONPATH": str(root), "TMPDIR": str(folder)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []  # nothing is left behind
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_round_is_measured_in_parts_that_add_up(tmp_path: Path) -> None:
    found = bench(tmp_path, "round", "--clients", "2", "--params", "1000", "--rounds", "2")
    assert (found["clients"], found["params"], found["rounds"]) == (2, 1000, 2)
    assert found["suite"] == "chacha20-poly1305"
    assert abs(sum(found["parts"].values()) - found["seconds"]) < 1e-6
    assert len(found["each_round_seconds"]) == 2
    assert found["bytes_up"] > 2 * found["bytes"] > found["bytes"]
    assert found["bytes"] < found["bytes_down"] < 3 * found["bytes"]
    assert 10 < found["client_peak_mb"] < found["aggregator_peak_mb"] < 320


def test_a_transfer_is_measured_beside_paho_in_the_same_chunks(tmp_path: Path) -> None:
    found = bench(tmp_path, "transport", "--size", "1", "--suite", "aes-256-gcm")
    assert (found["bytes"] // 1_000_000, found["chunk_bytes"], found["suite"]) == (1, 65536, "aes-256-gcm")
    assert (
        found["ratio"] == found["floe_mb_s"] / found["raw_mb_s"]
        or abs(found["ratio"] - found["floe_mb_s"] / found["raw_mb_s"]) < 1e-9 * found["ratio"]
    )
