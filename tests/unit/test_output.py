"""What `floe` says and how it ends where stdout is full, closed, or a pipe that nobody reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.process import environment

ROOT = Path(__file__).resolve().parents[2]
BROKEN_PIPE = 141


def shell(line: str, folder: Path) -> tuple[int, str]:
    """The exit code of `floe` in a line of bash where it is `$FLOE`, and what all of it said on stderr."""
    env = environment({"PYTHONPATH": str(ROOT), "FLOE": f"{sys.executable} -m floe"})
    script = f"{line}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["init --print", "--help", "--version", "init"])
@pytest.mark.parametrize(
    ("target", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_a_stdout_that_takes_nothing_is_one_line_and_an_exit_code_of_its_own(
    tmp_path: Path, command: str, target: str, reason: str
) -> None:
    assert shell(f"$FLOE {command} {target}", tmp_path) == (74, f"floe: cannot write to stdout: {reason}\n")


@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_reader_that_went_away_is_nobodys_fault(tmp_path: Path, unbuffered: str) -> None:
    line = f"{{ sleep 0.5; PYTHONUNBUFFERED={unbuffered} $FLOE init --print; }} | true"
    assert shell(line, tmp_path) == (BROKEN_PIPE, "")


def test_an_error_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "floe.toml").touch()
    code, said = shell("$FLOE init >/dev/full", tmp_path)
    assert code == 2
    assert "exists already" in said


def test_a_name_that_is_not_text_is_shown_with_escapes(tmp_path: Path) -> None:
    assert shell("$FLOE key new $'k\\xff' | grep -qF '\\udcff written'", tmp_path) == (0, "")


def test_a_demo_whose_reader_has_enough_ends_its_processes_and_says_nothing(tmp_path: Path) -> None:
    line = "$FLOE demo --data synthetic --rounds 1000 --out run | head -n 1"
    assert shell(line, tmp_path) == (BROKEN_PIPE, "")
    folders = {link.resolve() for link in Path("/proc").glob("[0-9]*/cwd") if _readable(link)}
    assert tmp_path / "run" not in folders, "every process of the demo works in its folder"


def _readable(link: Path) -> bool:
    try:
        return bool(link.readlink())
    except OSError:
        return False


@pytest.mark.parametrize("flags", ["--patience nan", "--patience inf", "--data ''"])
def test_a_demo_is_not_begun_with_what_means_nothing(tmp_path: Path, flags: str) -> None:
    code, said = shell(f"$FLOE demo {flags}", tmp_path)
    assert code == 2
    assert f"Invalid value for '{flags.split()[0]}'" in said
    assert not (tmp_path / "runs").exists()
