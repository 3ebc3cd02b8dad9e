"""`floe bench` as a user runs it: small, with the figures looked at and no time asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench import folder as bench_folder
from bench.folder import Settings
from bench.trainer import TENSOR
from floe import weights
from floe.files import hash_of


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


def test_a_fleet_of_simulated_devices_makes_the_mean_that_its_devices_foretell(tmp_path: Path) -> None:
    found = bench(tmp_path, "fleet", "--devices", "20", "--params", "1000", "--rounds", "2")
    assert [(row["round"], row["accepted"], row["in_hands"]) for row in found["rounds"]] == [(1, 20, 20), (2, 20, 20)]
    settings, numbers = Settings(20, 1000, 2, "chacha20-poly1305"), np.arange(1, 21)
    (tmp_path / "own").mkdir()
    bench_folder.make(tmp_path / "own", settings, 1883)
    model = weights.read(tmp_path / "own" / bench_folder.INITIAL)[TENSOR]
    for row in found["rounds"]:
        # Device n adds n and was trained on n rows (bench/simulated.py).
        updates = np.stack([model + np.float32(n) for n in numbers]).astype(np.float64)
        model = np.average(updates, axis=0, weights=numbers).astype(np.float32)
        weights.write(tmp_path / "model", {TENSOR: model}, {"schema": bench_folder.SCHEMA.to_json()})
        assert row["sha256"] == hash_of(tmp_path / "model")
    assert found["close_seconds"] <= found["seconds"]
    assert 1 < found["broker_peak_mb"] < found["aggregator_peak_mb"] < 320


def test_enrolled_federations_run_their_rounds_in_turn_with_one_that_shares_a_key(tmp_path: Path) -> None:
    found = bench(tmp_path, "trust", "--clients", "2", "--params", "1000", "--rounds", "2")
    assert [mode["mode"] for mode in found["modes"]] == ["shared", "ed25519", "rsa-2048-pss"]
    for mode in found["modes"]:
        assert len(mode["each_round"]) == 2
        assert min(mode["each_round"]) > 0 < mode["broker"]
    assert found["modes"][0]["ratio"] == 1.0
    assert (found["clients"], found["params"], found["rounds"], found["suite"]) == (2, 1000, 2, "chacha20-poly1305")
