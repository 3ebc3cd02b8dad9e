"""Private training over a real broker: what is counted, what a spent budget ends, and what a SIGKILL changes: nothing.

`privacy = "example"` is done by torch devices, `privacy = "device"` by numpy's.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.federation import Federation, Sections
from helpers.kills import Make, aggregator_at, kill_everywhere, table, unknown
from helpers.plain import SECTIONS
from helpers.process import environment

from floe.accounting import epsilon_of
from floe.files import hash_of

ROOT = Path(__file__).resolve().parents[2]
SLOW_S = 200.0  # torch and opacus, on a machine that others use
STEPS = 3 * 5  # of a round: epochs times batches
BUDGET = 5.5
EXAMPLE: Sections = {
    "rounds": {"count": 2, "devices": 2, "quorum": 2, "grace_s": 3600.0, "deadline_s": 3600.0},
    "plan": {
        "model": "mlp", "hidden": [8], "scaling": "none", "epochs": 3, "batch_size": 8, "privacy": "example",
        "noise_multiplier": 1.0, "delta": 1e-3,
    },
}  # fmt: skip
LONG: dict[str, Any] = {**EXAMPLE["plan"], "epochs": 200}
LEDGER = "local/privacy/ledger.json"


def state_of(federation: Federation, device: str) -> Path:
    return federation.folder / "state" / f"device-{device}"


def ledger_of(federation: Federation, device: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((state_of(federation, device) / LEDGER).read_text())["kept"]
    return kept


def floe(federation: Federation, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "floe", *arguments], cwd=federation.folder, capture_output=True, text=True, check=True,
        env=environment({"PYTHONPATH": str(ROOT)}), timeout=60,
    )  # fmt: skip
    return done.stdout


def give_keys(federation: Federation, keys: dict[str, str]) -> None:
    """Ledgers in which nothing is spent yet, with the noise of other devices."""
    for device, key in keys.items():
        kept = json.dumps({"key": key}, separators=(",", ":"))
        check = hashlib.sha256(kept.encode()).hexdigest()
        folder = state_of(federation, device)
        for one in (folder, folder / "local", folder / "local" / "privacy"):
            one.mkdir(mode=0o700)
        (folder / LEDGER).write_text(f'{{"check":"{check}","kept":{kept}}}')


@pytest.fixture(scope="module")
def example(new_federation: Make) -> tuple[Federation, dict[int, str], dict[str, str]]:
    """Two undisturbed rounds: the federation, its models, and the keys of its devices' noise."""
    with new_federation("example") as federation:
        federation.configure(EXAMPLE)
        federation.aggregator()
        for device in "ab":
            federation.client(device)
        federation.finish(SLOW_S)
        keys = {device: ledger_of(federation, device)["key"] for device in "ab"}
        return federation, federation.models(), keys


def test_what_examples_have_spent_stands_in_the_log_and_in_the_status(
    example: tuple[Federation, dict[int, str], dict[str, str]],
) -> None:
    federation = example[0]
    for device in "ab":
        rows = federation.query(
            "SELECT epsilon, delta, accountant FROM updates WHERE device = ? AND task = 'train' ORDER BY round", device
        )
        first, second = (row["epsilon"] for row in rows)
        assert 0 < first < second
        assert {(row["delta"], row["accountant"]) for row in rows} == {(1e-3, "rdp")}
        assert federation.query("SELECT epsilon FROM devices WHERE device = ?", device) == [{"epsilon": second}]
        assert ledger_of(federation, device)["history"] == [[1.0, 0.2, 2 * STEPS]]
    found = json.loads(floe(federation, "status", "--json"))
    assert {one["device"]: one["epsilon"] for one in found["devices"]} == dict.fromkeys("ab", second)
    assert found["privacy"] == {"unit": "example", "epsilon": second, "delta": 1e-3, "accountant": "rdp"}
    said = floe(federation, "status")
    assert f"privacy  epsilon {-(-second * 100 // 1) / 100:.2f} (example, delta 0.001, rdp)" in said


@pytest.mark.parametrize(
    ("step", "rounds"),  # of the account, as it dies; whether it was quick enough to pack a first model, nobody knows
    [
        ("in write state/device-b/local/privacy/.ledger.json.part in book #2", {1}),
        ("after rename state/device-b/local/privacy/ledger.json in book #2", {2}),
        ("in write state/device-b/outbox/*.packing in _pack #2", {1, 2}),
        ("after rename state/device-b/outbox/*.json in _pack #2", {1, 2}),
    ],
)
def test_a_device_killed_in_a_round_counts_it_once_and_has_the_same_noise(
    federation: Federation, example: tuple[Federation, dict[int, str], dict[str, str]], step: str, rounds: set[int]
) -> None:
    _, models, keys = example
    federation.configure(EXAMPLE)
    give_keys(federation, keys)
    federation.aggregator()
    federation.client("a")
    killed = federation.client("b", by=("helpers.killer", "kill", step, "--"))
    assert killed.wait(SLOW_S) == -signal.SIGKILL, killed.said()
    assert ledger_of(federation, "b")["history"] in [[[1.0, 0.2, number * STEPS]] for number in rounds]
    federation.client("b")
    federation.finish(SLOW_S)
    assert ledger_of(federation, "b")["history"] == [[1.0, 0.2, 2 * STEPS]]
    assert federation.models() == models


def test_a_device_killed_while_it_trains_counts_the_round_once(federation: Federation) -> None:
    federation.configure({**EXAMPLE, "rounds": {**EXAMPLE["rounds"], "count": 1}, "plan": LONG})
    federation.aggregator()
    federation.client("a")
    killed = federation.client("b")
    federation.wait((state_of(federation, "b") / LEDGER).exists, "it has booked the round", SLOW_S)
    killed.kill()
    assert killed.wait(SLOW_S) == -signal.SIGKILL
    assert federation.query("SELECT * FROM updates WHERE device = 'b' AND task = 'train'") == []
    before = ledger_of(federation, "b")
    assert before["history"] == [[1.0, 0.2, 5 * LONG["epochs"]]]
    federation.client("b")
    federation.finish(SLOW_S)
    assert ledger_of(federation, "b") == before
    (spent,) = federation.query("SELECT epsilon FROM updates WHERE device = 'b' AND task = 'train'")
    assert federation.query("SELECT epsilon FROM devices WHERE device = 'b'") == [spent]


def test_a_device_whose_budget_is_spent_says_so_and_sends_nothing(federation: Federation) -> None:
    """Round 1 costs epsilon 4.6, rounds 1 and 2 together 6.6."""
    rounds = {**EXAMPLE["rounds"], "count": 3, "grace_s": 0.0, "below_quorum": "void"}
    federation.configure({**EXAMPLE, "rounds": rounds, "plan": {**EXAMPLE["plan"], "epsilon": BUDGET}})
    federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.finish(SLOW_S)
    updates = federation.query("SELECT * FROM updates WHERE task = 'train' ORDER BY round, device")
    assert [(row["round"], row["device"], row["outcome"]) for row in updates[:2]] == [(1, d, "accepted") for d in "ab"]
    assert {row["round"] for row in updates[2:]} == {2, 3}
    for row in updates[2:]:
        assert (row["outcome"], row["sha256"], row["bytes"], row["epsilon"]) == ("rejected", None, 0, None)
        assert row["detail"].startswith("privacy budget spent: epsilon ")
        assert row["detail"].endswith(f" of {BUDGET} (example, delta 0.001, rdp) with one round more")
    assert hash_of(federation.folder / "models" / "devices" / "a.safetensors") == updates[0]["sha256"]
    assert sorted(federation.models()) == [0, 1]
    assert ledger_of(federation, "a")["history"] == [[1.0, 0.2, STEPS]]


DEVICE: Sections = {
    **SECTIONS,
    "rounds": {"count": 20, "devices": 3, "quorum": 3, "grace_s": 3600.0, "deadline_s": 3600.0},
    "plan": {
        **SECTIONS["plan"], "privacy": "device", "noise_multiplier": 4.0, "delta": 1e-3, "clip_norm": 0.5,
        "clip_quantile": 0.5,
    },
    "device": {"telemetry_s": 0.0},
}  # fmt: skip
PART = 6
NOISE_KEY = "state/aggregator-main/privacy/noise.key"


def test_rounds_with_noise_for_devices_end_when_the_budget_is_spent(federation: Federation) -> None:
    budget = (epsilon_of([4.0] * 3, 1e-3) + epsilon_of([4.0] * 4, 1e-3)) / 2
    federation.configure({**DEVICE, "plan": {**DEVICE["plan"], "epsilon": budget}})
    federation.aggregator()
    for device in "abc":
        federation.client(device)
    federation.finish()
    rows = federation.query("SELECT * FROM rounds WHERE task = 'train' ORDER BY round")
    assert [row["epsilon"] for row in rows] == [epsilon_of([4.0] * k, 1e-3) for k in (1, 2, 3)]
    assert {(row["state"], row["delta"], row["accountant"]) for row in rows} == {("closed", 1e-3, "gaussian")}
    assert len({row["clip_norm"] for row in rows}) == 3
    (last,) = federation.query("SELECT text FROM events WHERE text LIKE '%privacy budget spent%'")
    assert f"of {budget} (device, delta 0.001, gaussian)" in last["text"]
    assert federation.query("SELECT round FROM rounds WHERE task = 'evaluate' AND state = 'closed'") == [{"round": 3}]
    assert json.loads(floe(federation, "status", "--json"))["privacy"]["epsilon"] == rows[-1]["epsilon"]
    assert "(device, delta 0.001, gaussian)" in floe(federation, "status")


def made_so_far(federation: Federation) -> dict[str, str]:
    """The models that are there, in the log or not yet."""
    return {path.stem: hash_of(path) for path in (federation.folder / "models" / "global").glob("*.safetensors")}


def parts(name: str) -> list[list[str]]:
    """The steps of a table, in order, in parts that one test gets through in a minute."""
    steps = table(name)
    return [steps[at : at + PART] for at in range(0, len(steps), PART)]


@pytest.mark.parametrize("steps", parts("noise"), ids=lambda steps: steps[0])
def test_an_aggregator_killed_at_the_steps_of_the_noise_publishes_no_two_models_of_a_round(
    new_federation: Make, steps: list[str]
) -> None:
    left: dict[str, str] = {}

    def begin(federation: Federation) -> None:
        left.clear()
        federation.configure(DEVICE)
        for device in "abc":
            federation.client(device)

    def died(federation: Federation) -> None:
        found = made_so_far(federation)
        assert left | found == found | left, "a model that a round had made has changed"
        left.update(found)

    def end(federation: Federation) -> None:
        rounds = max(federation.models(), default=0) + 1
        federation.configure({**DEVICE, "rounds": {**DEVICE["rounds"], "count": rounds}})
        notes = federation.folder / "notes.txt"
        federation.aggregator(by=("helpers.killer", "note", str(notes), "--"))
        federation.finish()
        new = unknown(notes.read_text().splitlines(), "aggregator", "noise")
        assert new == [], "steps that nothing kills at yet: add them to kill_steps/noise.txt"
        models = {str(number): sha256 for number, sha256 in federation.models().items()}
        assert models | left == models
        assert sorted(federation.models()) == list(range(rounds + 1))
        rows = federation.query("SELECT epsilon FROM rounds WHERE task = 'train' ORDER BY round")
        assert [row["epsilon"] for row in rows] == [epsilon_of([4.0] * k, 1e-3) for k in range(1, rounds + 1)]
        assert len((federation.folder / NOISE_KEY).read_bytes()) == 32

    kill_everywhere(steps, new_federation, begin, aggregator_at, end, died=died)
