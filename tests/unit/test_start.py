"""start.sh on a machine made of stand-ins: what it installs, repairs, refuses and leaves alone.

Each test has a folder `bin` that is the whole PATH, with a `python3` and an `apt-get` that write down what they are
asked to do. The real set-up, with real packages, is what `.ci/run` goes through in a fresh clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
TOOLS = """
bash cat chmod cp dirname env flock grep head mkdir mktemp rm sed sha256sum tail touch uname
"""

PYTHON = """#!/bin/bash
echo "python $*" >>"$CALLS"
case "$*" in
*"version_info < "*) [[ -z $OLD ]] ;;
*--version*) echo "Python ${OLD:-3.11.2}" ;;
*"-m venv "*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python"
    printf '#!/bin/bash\\necho "floe $*; $PWD"\\n' >"${@: -1}/bin/floe"; chmod +x "${@: -1}/bin/floe" ;;
*torch.version.cuda*) echo "${CUDA:-None}" ;;
*sys.prefix*) echo "3.11.2 here" ;;
*"$BROKEN"*) [[ -z $BROKEN ]] || { echo "the network is down"; exit 1; } ;;
esac
"""
APT_GET = """#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[[ $* != *install* ]] || cp "${0%/*}/mosquitto_pub" "${0%/*}/mosquitto_sub"
"""


class Machine:
    """A checkout and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.calls_file = folder / "floe", folder / "bin", folder / "calls"
        self.root.mkdir()
        self.bin.mkdir()
        for name in ("start.sh", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool) or "")
        for name in ("mosquitto", "mosquitto_pub", "mosquitto_sub"):
            self.program(name, "#!/bin/bash\n")
        self.program("python3", PYTHON)

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def calls(self) -> str:
        """What python3 and apt-get were asked since the last look."""
        text = self.calls_file.read_text() if self.calls_file.exists() else ""
        self.calls_file.unlink(missing_ok=True)
        return text

    def start(self, *arguments: str, user: int | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        base = {"PATH": str(self.bin), "CALLS": str(self.calls_file), "OLD": "", "BROKEN": "", "TMPDIR": str(self.bin)}
        return subprocess.run(
            [shutil.which("bash") or "", self.root / "start.sh", *arguments],
            env=base | environ,
            cwd=self.bin,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=user,
        )


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not tmp_path: another account has to be able to look inside.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Machine(Path(name))


def test_the_script_has_no_syntax_error() -> None:
    assert subprocess.run(["bash", "-n", ROOT / "start.sh"], check=False).returncode == 0


def test_without_a_terminal_and_without_a_word_it_shows_the_usage(machine: Machine) -> None:
    done = machine.start()
    assert done.returncode == 2
    assert "./start.sh demo" in done.stderr
    assert not (machine.root / ".venv").exists()


def test_help_is_an_answer_and_not_an_error(machine: Machine) -> None:
    assert machine.start("-h").stdout.startswith("./start.sh")


def test_a_word_runs_floe_where_the_person_stands_and_stdout_is_floes_alone(machine: Machine) -> None:
    done = machine.start("models", "list", "--all")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"floe models list --all; {machine.bin}\n"


def test_torch_is_asked_of_local_wheels_and_not_of_the_index(machine: Machine) -> None:
    machine.start("setup")
    calls = machine.calls()
    assert "pip --disable-pip-version-check install --no-index --no-deps torch==" in calls
    assert "\ntorch==" not in (machine.root / ".venv" / "without-torch.txt").read_text()


def test_the_second_run_installs_nothing(machine: Machine) -> None:
    machine.start("setup")
    machine.calls()
    assert machine.start("setup").returncode == 0
    assert "pip" not in machine.calls()


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_other_requirements_are_installed_into_the_same_environment(machine: Machine, name: str) -> None:
    machine.start("setup")
    machine.calls()
    with (machine.root / name).open("a") as file:
        file.write("# changed\n")
    machine.start("setup")
    calls = machine.calls()
    assert "install --only-binary" in calls
    assert "-m venv" not in calls


def test_a_set_up_that_failed_shows_why_and_is_repaired_by_the_next_run(machine: Machine) -> None:
    failed = machine.start("setup", BROKEN="install --only-binary")
    assert failed.returncode == 1
    assert "the network is down" in failed.stderr
    assert "the whole log is" in failed.stderr
    machine.calls()
    assert machine.start("setup").returncode == 0
    assert "-m venv" in machine.calls(), "what is half done is made anew"


def test_an_environment_whose_python_is_gone_is_made_anew(machine: Machine) -> None:
    machine.start("setup")
    (machine.root / ".venv" / "bin" / "python").unlink()
    assert machine.start("models").returncode == 0
    assert (machine.root / ".venv" / "bin" / "python").exists()


def test_torch_for_cuda_is_removed_again_and_refused(machine: Machine) -> None:
    done = machine.start("setup", CUDA="13.0")
    assert done.returncode == 1
    assert "built for CUDA 13.0" in done.stderr
    assert "uninstall -q -y torch" in machine.calls()


def test_a_python_that_is_too_old_is_named_before_anything_is_installed(machine: Machine) -> None:
    for name in ("python3.11", "python3.12", "python3.13"):
        machine.program(name, PYTHON)
    done = machine.start("setup", OLD="3.9.2")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed, found Python 3.9.2" in done.stderr
    assert not (machine.root / ".venv").exists()


def test_output_without_a_terminal_has_no_colour(machine: Machine) -> None:
    done = machine.start("setup")
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_root_installs_the_missing_packages_and_no_other(machine: Machine) -> None:
    (machine.bin / "mosquitto_sub").unlink()
    machine.program("apt-get", APT_GET)
    done = machine.start("setup")
    assert done.returncode == 0, done.stderr
    asked = [line for line in machine.calls().splitlines() if line.startswith("apt-get")]
    assert [line.split("Timeout=300 ")[1] for line in asked] == [
        "update",
        "install -y --no-install-recommends mosquitto-clients",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_a_browser_is_installed_for_the_tests_alone(machine: Machine) -> None:
    machine.program("apt-get", APT_GET)
    machine.start("setup")
    assert "chromium" not in machine.calls()
    machine.start("test")
    assert "install -y --no-install-recommends chromium\n" in machine.calls()


def test_a_browser_that_is_there_is_enough_for_the_tests(machine: Machine) -> None:
    machine.program("chromium", "#!/bin/bash\n")
    machine.program("apt-get", APT_GET)
    machine.start("test")
    assert "apt-get" not in machine.calls()


def test_without_root_and_sudo_the_exact_command_is_shown(machine: Machine) -> None:
    (machine.bin / "mosquitto_sub").unlink()
    machine.program("apt-get", APT_GET)
    done = machine.start("setup", user=NOBODY if os.geteuid() == 0 else None)
    assert done.returncode == 1
    assert "apt-get update && apt-get install -y mosquitto-clients" in done.stderr
    assert "apt-get" not in machine.calls()


def test_without_apt_the_packages_are_named(machine: Machine) -> None:
    (machine.bin / "mosquitto_sub").unlink()
    done = machine.start("setup")
    assert done.returncode == 1
    assert "please install mosquitto-clients" in done.stderr
