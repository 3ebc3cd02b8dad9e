"""The user's own trainer: found by its alias, checked for what it must do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_client.data.features import Features
from edge_client.own import own_trainer
from floe.errors import ConfigError
from floe.plan import Plan
from floe.schema import Schema

Y = np.arange(6) % 2
FEATURES = Features(np.eye(6, 2, dtype=np.float32), Y, np.eye(6, 2, dtype=np.float32), Y, Schema((2,), 2))


def test_a_trainer_of_ones_own_trains() -> None:
    trainer = own_trainer("plain", "helpers.plain:Plain", FEATURES, Plan(epochs=3, learning_rate=0.5))
    arrays, report = trainer.train(trainer.initial(), device="ann", round=1, stop=lambda: False)
    assert report.samples == 6
    assert report.before is not None
    assert report.after is not None
    assert report.after.loss < report.before.loss
    assert {name: array.shape for name, array in arrays.items()} == {"weight": (2, 2), "bias": (2,)}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nowhere:Plain", "cannot be imported: ModuleNotFoundError"),
        ("helpers.plain:SECTIONS", "a function is needed"),
        ("builtins:int", "failed when called with"),
        ("builtins:zip", "failed when called with"),
        ("types:SimpleNamespace", "failed when called with"),
        ("builtins:isinstance", "failed when called with"),
        ("floe.plan:isinstance", "cannot be imported: AttributeError"),
        ("operator:eq", "made a bool without initial()"),
    ],
)
def test_what_is_no_trainer_is_refused_with_its_name(target: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        own_trainer("mine", target, FEATURES, Plan())
    assert "trainer 'mine'" in str(caught.value)
    assert problem in str(caught.value)


def test_a_device_with_a_trainer_of_its_own_never_imports_torch() -> None:
    code = (
        "from test_own import FEATURES; from edge_client.own import own_trainer; from floe.plan import Plan;"
        "import edge_client.command; own_trainer('p', 'helpers.plain:Plain', FEATURES, Plan()); print(*sys.modules)"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2]), *sys.path]
    code = f"import sys; sys.path = {folders!r}; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stdout.split()
