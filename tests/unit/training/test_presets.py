"""The plans of the demo."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from demo.presets import PRESETS
from edge_client.data.sources import NAMES
from edge_client.models import build
from floe.plan import Plan
from floe.schema import Schema

SCHEMAS = {
    "breast-cancer": Schema((30,), 2),
    "synthetic": Schema((16,), 2),
    "digits": Schema((1, 8, 8), 10),
    "mnist": Schema((1, 28, 28), 10),
    "cifar10": Schema((3, 32, 32), 10),
}


def test_every_data_set_of_the_demo_has_a_plan() -> None:
    assert set(PRESETS) == set(NAMES)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_a_valid_plan_whose_model_fits_the_data(name: str) -> None:
    assert msgspec.json.decode(msgspec.json.encode(PRESETS[name]), type=Plan) == PRESETS[name]
    assert build(PRESETS[name], SCHEMAS[name], {}).name == repr(PRESETS[name].model)


def test_presets_and_the_features_do_not_import_torch() -> None:
    code = "import sys, demo.presets, edge_client.data.features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
