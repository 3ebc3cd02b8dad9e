"""Every rule with every partition, and every sound pair of the other choices, in real federations over Mosquitto.

What runs is made by `helpers.pairs`; that it covers what it says is `tests/unit/rules/test_pairs.py`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from helpers.federation import Federation, a_federation
from helpers.paired import Paired
from helpers.pairs import PERSONAL, SETUPS, Setup, cases

from floe import weights


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_each_round_makes_the_model_that_its_rule_makes_of_what_the_devices_sent(tmp_path: Path, setup: Setup) -> None:
    rounds = [case for case in cases() if case.setup == setup]
    with a_federation(tmp_path) as federation:
        paired = Paired(federation, setup, rounds[0])
        for case in rounds:
            paired.go(case)
        models = federation.models()
        assert sorted(models) == list(range(paired.round + 1))
        for device in paired.devices:
            federation.wait(lambda d=device: paired.held_by(d) == models[paired.round], f"{device} has the last model")
        assert federation.query("SELECT * FROM events WHERE level = 'error'") == []
        assert federation.query("SELECT * FROM events WHERE text LIKE '%older than a command%'") == []
        check_personal(federation, setup)
        if {"int8", "weights"} <= paired.judge.bytes.keys():
            assert max(paired.judge.bytes["int8"]) < min(paired.judge.bytes["weights"])


def check_personal(federation: Federation, setup: Setup) -> None:
    """What stays on the devices is in no global model and no update, and is on every device."""
    if setup.personal == "none":
        return
    models = federation.folder / "models"
    shared = [*(models / "global").glob("*.safetensors"), *(models / "devices").glob("*.safetensors")]
    assert len(shared) > len(list((models / "devices").glob("*.safetensors"))) > 0
    for path in shared:
        assert personal(path, setup) == [], path
    for path in models.glob("*.safetensors"):
        assert personal(path, setup), path


def personal(path: Path, setup: Setup) -> list[str]:
    return [name for name in weights.read(path) if any(fnmatchcase(name, p) for p in PERSONAL[setup.model])]
