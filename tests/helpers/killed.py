"""A process that dies between two steps on the disk, without a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


class Killed(BaseException):
    """Nothing that the code under test could catch."""


def killed_at(patch: pytest.MonkeyPatch, step: int) -> list[str]:
    """The process dies instead of its nth change of a folder; what it has tried."""
    taken: list[str] = []

    def counting(name: str) -> None:
        function = getattr(os, name)

        def call(*args: Any, **more: Any) -> Any:
            taken.append(f"{name} {Path(args[0]).name}")
            if len(taken) >= step:
                raise Killed
            return function(*args, **more)

        patch.setattr(os, name, call)

    for name in ("replace", "rename", "link", "unlink", "rmdir", "mkdir"):
        counting(name)
    return taken
