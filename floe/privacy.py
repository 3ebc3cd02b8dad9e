"""Differential privacy in words, and the packages it needs. What is computed: edge_client and `floe.accounting`."""

from __future__ import annotations

import math
from importlib.util import find_spec

from floe.errors import ConfigError

ACCOUNTS = {"example": "opacus", "device": "dp_accounting"}


def require(privacy: str) -> None:
    """Whether the package is there that a plan's `privacy` needs. Raises `ConfigError` with the command."""
    name = ACCOUNTS[privacy].replace("_", "-")
    if find_spec(ACCOUNTS[privacy]) is None:
        raise ConfigError(f"plan.privacy = \"{privacy}\" needs {name}, which is absent: pip install 'floe[dp]'")
    try:
        __import__(ACCOUNTS[privacy])
    except ImportError as error:
        raise ConfigError(
            f'plan.privacy = "{privacy}" needs {name}, which does not start ({error}): pip install --force-reinstall '
            f"{name}"
        ) from None


def words(epsilon: float, unit: str, delta: float, accountant: str) -> str:
    """What has been spent, epsilon rounded up: "epsilon 1.23 (example, delta 1e-05, rdp)"."""
    return f"epsilon {rounded_up(epsilon)} ({unit}, delta {delta:g}, {accountant})"


def rounded_up(epsilon: float) -> str:
    """Two digits after the point, never less than what it is."""
    return f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"


def over_budget(epsilon: float, limit: float, unit: str, delta: float, accountant: str) -> str:
    """Why training is refused: "privacy budget spent: epsilon 3.02 of 3.0 (example, delta 1e-05, rdp) with one round
    more". `epsilon`: what it would come to.
    """
    after = f"epsilon {rounded_up(epsilon)} of {float(limit)} ({unit}, delta {delta:g}, {accountant})"
    return f"privacy budget spent: {after} with one round more"
