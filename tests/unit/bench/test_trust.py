"""The table of `floe bench trust`: ratios to the shared key, and what one signature costs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench import folder as bench_folder
from bench.folder import Settings, Trust
from bench.primitives import primitives
from bench.trust import MODES, Spent
from bench.trust_figures import NAMES, trust_lines, trust_result
from bench.usage import cpu_seconds
from floe.config import load

SPENT: dict[Trust, list[Spent]] = {
    "shared": [Spent(1.0, 1.0, 0.5), Spent(1.5, 1.5, 0.25), Spent(9.0, 1.0, 0.75)],
    "ed25519": [Spent(1.25, 1.0, 0.5), Spent(2.0, 2.0, 0.5), Spent(6.0, 4.0, 0.5)],
    "rsa-2048-pss": [Spent(1.5, 1.0, 0.5), Spent(2.0, 1.75, 0.5), Spent(1.0, 1.0, 0.5)],
}
SIGNATURES = [
    {"algorithm": "ed25519", "sign_us": 21.0, "verify_us": 65.0, "signature_characters": 86, "key_characters": 43},
    {"algorithm": "rsa-2048-pss", "sign_us": 215.0, "verify_us": 18.0, "signature_characters": 342,
     "key_characters": 392},
]  # fmt: skip
PRIMITIVES = {"signatures": SIGNATURES, "hpke": {"seal_us": 79.0, "open_us": 43.0, "bytes": 80}}
SETTINGS = Settings(4, 1000, 3, "chacha20-poly1305")


def test_a_round_is_compared_with_the_shared_keys_of_the_same_turn_the_broker_apart() -> None:
    modes = trust_result(SETTINGS, SPENT, PRIMITIVES)["modes"]
    assert [mode["mode"] for mode in modes] == list(MODES)
    assert [mode["cpu_seconds"] for mode in modes] == [3.0, 4.0, 2.5]
    assert [mode["ratio"] for mode in modes] == [1.0, 1.125, 1.25]
    assert (modes[0]["aggregator"], modes[0]["clients"], modes[0]["broker"]) == (1.5, 1.0, 0.5)
    assert modes[0]["each_round"] == [2.0, 3.0, 10.0]


def test_the_table_has_every_figure() -> None:
    text = "\n".join(trust_lines(trust_result(SETTINGS, SPENT, PRIMITIVES)))
    for shown in (
        "4 clients, 4.1 kB",
        "medians of 3",
        *NAMES.values(),
        "1.125",
        "1.250",
        "215",
        "342",
        "79 us to seal",
    ):
        assert shown in text, shown


def test_signatures_of_both_algorithms_and_a_seal_are_measured() -> None:
    found = primitives()
    sizes = [(row["algorithm"], row["signature_characters"], row["key_characters"]) for row in found["signatures"]]
    assert sizes == [("ed25519", 86, 43), ("rsa-2048-pss", 342, 392)]
    assert found["hpke"]["bytes"] == 80
    times = [found["hpke"]["seal_us"], found["hpke"]["open_us"]]
    times += [row[name] for row in found["signatures"] for name in ("sign_us", "verify_us")]
    assert min(times) > 0


@pytest.mark.parametrize("mode", MODES)
def test_enrolled_devices_need_no_shared_key_and_sign_as_they_are_told(tmp_path: Path, mode: Trust) -> None:
    bench_folder.make(tmp_path, Settings(2, 10, 2, "aes-256-gcm", mode), 1883)
    assert (tmp_path / "secret.key").exists() == (mode == "shared")
    security = load(environ={}, file=tmp_path / "floe.toml").security
    assert security.signatures == ("ed25519" if mode == "shared" else mode)


def test_processor_time_is_read_more_finely_than_the_kernels_ticks() -> None:
    before, ours = time.process_time(), cpu_seconds(os.getpid())
    assert before < ours < time.process_time()
