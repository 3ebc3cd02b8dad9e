"""The systemd units fit the command line, and systemd understands them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from floe.cli import COMMANDS, floe
from floe.config import variable
from floe.settings import SECTIONS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
INSTALL = DEPLOY / "install.sh"


def lines(unit: Path, key: str) -> list[str]:
    """All values of a key, which systemd allows to stand more than once."""
    return [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def test_every_process_has_a_unit() -> None:
    names = ["floe-aggregator.service", "floe-broker.service", "floe-client@.service", "floe-ui.service"]
    assert [unit.name for unit in UNITS] == names


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_exists_with_flags_that_exist(unit: Path) -> None:
    (line,) = lines(unit, "ExecStart")
    program, name, *arguments = line.split()
    assert program == "@prefix@/.venv/bin/floe"
    assert name in COMMANDS
    command = floe.get_command(click.Context(floe), name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_sets_only_variables_that_floe_knows_and_keeps_its_state_in_one_place(unit: Path) -> None:
    known = {variable(section, key) for section, struct in SECTIONS.items() for key in struct.__struct_fields__}
    assignments = dict(word.split("=", 1) for line in lines(unit, "Environment") for word in line.split())
    assert set(assignments) <= known
    (directory,) = lines(unit, "StateDirectory")
    read = {"FLOE_PATHS_MODELS", "FLOE_PATHS_LOG"} if unit.name == "floe-ui.service" else set()
    paths = [value for name, value in assignments.items() if name.startswith("FLOE_PATHS_") and name not in read]
    assert paths
    assert all(f"{path}/".startswith(f"/var/lib/{directory}/") for path in paths)


def test_the_page_reads_where_the_aggregator_writes_and_may_not_write_there() -> None:
    def paths(name: str) -> dict[str, str]:
        return dict(word.split("=", 1) for line in lines(DEPLOY / name, "Environment") for word in line.split())

    page, aggregator = paths("floe-ui.service"), paths("floe-aggregator.service")
    for name in ("FLOE_PATHS_MODELS", "FLOE_PATHS_LOG"):
        assert page[name] == aggregator[name]
    assert lines(DEPLOY / "floe-ui.service", "ProtectSystem") == ["strict"]
    assert lines(DEPLOY / "floe-ui.service", "ReadWritePaths") == ["-/etc/floe/access"]


def test_the_installer_copies_every_package_of_the_wheel() -> None:
    text = (DEPLOY.parent / "pyproject.toml").read_text()
    packages = next(line for line in text.splitlines() if line.startswith("packages = ") and "floe" in line)
    copied = next(line for line in INSTALL.read_text().splitlines() if line.startswith("parts="))
    assert set(re.findall(r'"(\w+)"', packages)) <= set(re.findall(r"[\w.]+", copied))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "floe"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    name = unit.name.replace("@.", "@one.")
    (tmp_path / name).write_text(unit.read_text().replace("@prefix@", str(tmp_path)))
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dry_run_names_every_unit_and_changes_nothing(tmp_path: Path) -> None:
    prefix = tmp_path / "floe"
    done = subprocess.run([INSTALL, "--dry-run", "--prefix", prefix], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(unit.name in done.stdout for unit in UNITS)
    assert not prefix.exists()


def test_a_prefix_that_systemd_would_misread_is_refused() -> None:
    done = subprocess.run(
        [INSTALL, "--dry-run", "--prefix", "/opt/my floe"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "--prefix /opt/my floe" in done.stderr
