"""Options of commands that take numbers and names: what is neither is refused before anything is done."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from floe.cli import floe
from floe.errors import ConfigError


def error_of(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(floe, list(arguments), standalone_mode=False).exception


@pytest.mark.parametrize("number", ["nan", "NaN", "inf", "-inf", "x"])
@pytest.mark.parametrize(
    "command",
    ["invite --hours", "invite --reply", "devices list --reply", "devices approve a --wait",
     "federation restored --reply", "round status --wait", "demo --patience"],
)  # fmt: skip
def test_a_number_is_a_finite_number(command: str, number: str) -> None:
    error = error_of(*command.split(), number)
    assert isinstance(error, click.BadParameter)
    assert command.split()[-1] in (error.param.opts if error.param else ())


@pytest.mark.parametrize("name", ["", "-v", "a/b", "A", "x" * 65])
def test_an_invitation_is_for_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="a device needs a name"):
        raise error_of("invite", f"--device={name}") or AssertionError


@pytest.mark.parametrize("name", ["", "a/b", "A", "#", "x" * 65])
@pytest.mark.parametrize("command", ["show", "approve", "reject", "revoke", "rotate"])
def test_only_a_name_is_asked_about(command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no name of a device"):
        raise error_of("devices", command, name) or AssertionError
