"""A small log of `tests/bench/big_log.py`, made once a session."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "big_log.py"
DEVICES, ROUNDS = 50, 20
_made: list[Path] = []


def big_log() -> ModuleType:
    """The script as a module."""
    if "big_log" not in sys.modules:
        spec = importlib.util.spec_from_file_location("big_log", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["big_log"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["big_log"])
    return sys.modules["big_log"]


def small_log(temporary: pytest.TempPathFactory) -> Path:
    """floe.sqlite of 50 devices and 20 rounds. For reading."""
    if not _made:
        _made.append(big_log().make(temporary.mktemp("big"), DEVICES, ROUNDS))
    return _made[0]
