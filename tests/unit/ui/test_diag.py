"""`floe diag`: one archive, complete where it can be, with no secret of the federation in any of its members."""

from __future__ import annotations

import json
import secrets
import sqlite3
import stat
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aggregator.log import Log
from floe.cli import floe
from floe.errors import ConfigError, StoreError
from floe.files import storing
from floe.identity import load_identity
from floe.store import FILE
from ui import diag_parts
from ui.diag import write

HASH = "$7$1001$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA=="
PASSWORD = "correct horse battery staple 7319"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(floe, list(arguments), catch_exceptions=False, standalone_mode=True)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A federation's folder with every kind of secret: keys, root, operator, passwords, an invitation's token."""
    monkeypatch.chdir(tmp_path)
    run("key", "new")
    run("federation", "new", "--operator", "opa")
    (tmp_path / "floe.toml").write_text(
        f'[mqtt]\nhost = "broker.example"\nlogin = "shared"\nusername = "all"\npassword = "{PASSWORD}"\n'
        f'[ui]\npassword = "{HASH}"\n'
    )
    load_identity(tmp_path / "state" / "aggregator-main" / "keys", "main")
    (tmp_path / "access").mkdir(exist_ok=True)
    (tmp_path / "access" / "aggregator.password").write_text("pass-of-the-aggregator-5521\n")
    with closing(Log(tmp_path / "log")) as log:
        log.event("info", "opened", f"train 1; a careless operator typed {PASSWORD}")
        log.event("warning", "rejected", "pump-1: \x1b[2J")
        with log.db.atomic():
            row = (secrets.token_hex(32), "pump-1", 1, "opa", "", "")
            log.db.execute("INSERT INTO invitations VALUES (?, ?, ?, ?, ?, ?)", row)
            log.db.execute("INSERT INTO certificates VALUES ('pump-1', 'tls-word', 'pem-of-a-device', '', 1)")
    return tmp_path


def secrets_of(folder: Path) -> set[str]:
    """Everything that no archive may hold: passwords, and every line of every file that is a key."""
    found = {PASSWORD, HASH, "pass-of-the-aggregator-5521", "pem-of-a-device"}
    for path in folder.rglob("*"):
        if path.is_file() and (path.suffix in (".pem", ".password") or path.name == "secret.key"):
            lines = path.read_text().splitlines()
            found |= {line.strip() for line in lines if len(line.strip()) > 8 and not line.startswith("-----")}
    with closing(sqlite3.connect(folder / "log" / FILE)) as db:
        found |= {row[0] for row in db.execute("SELECT token FROM invitations")}
    return found


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = {about.name: archive.extractfile(about) for about in archive}
        return {name.partition("/")[2]: file.read().decode() for name, file in files.items() if file is not None}


def part(path: Path, name: str) -> Any:
    return json.loads(members(path)[name])


def test_no_secret_is_in_it(folder: Path) -> None:
    run("diag", "--out", "d.tar.gz")
    found, hidden = members(folder / "d.tar.gz"), secrets_of(folder)
    assert len(hidden) > 8
    assert {(name, secret) for name, text in found.items() for secret in hidden if secret in text} == set()
    assert "BEGIN" not in "".join(text for name, text in found.items() if name != "versions.json")
    assert part(folder / "d.tar.gz", "configuration.json")["mqtt"] == {
        **part(folder / "d.tar.gz", "configuration.json")["mqtt"], "host": "broker.example", "password": "(hidden)",
    }  # fmt: skip


def test_it_says_that_names_of_hosts_stay(folder: Path) -> None:
    assert "names of hosts" in run("diag", "--out", "d.tar.gz")


def test_it_has_all_parts_and_is_for_its_owner_only(folder: Path) -> None:
    run("diag", "--out", "d.tar.gz")
    path = folder / "d.tar.gz"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(members(path)) == {
        "README.txt", "versions.json", "configuration.json", "log.txt", "database.json", "files.txt", "machine.json",
        "check.json",
    }  # fmt: skip
    database = part(path, "database.json")
    assert database["rows"]["events"] == 2
    assert database["quick_check"] == ["ok"]
    assert database["trouble"] is None
    assert database["aggregator_running"] in (None, False)
    assert "pump-1: \\x1b[2J" in members(path)["log.txt"]
    assert "state/aggregator-main" in members(path)["files.txt"].replace(
        "aggregator-main/keys", "state/aggregator-main"
    )
    assert {"floe", "python", "mosquitto", "packages"} <= set(part(path, "versions.json"))
    assert part(path, "machine.json")["memory"]["total"] > 0
    assert part(path, "check.json")["checked"]["database"] == 1


def test_without_a_name_it_is_made_here(folder: Path) -> None:
    run("diag")
    assert len(list(folder.glob("floe-diag-*.tar.gz"))) == 1


def test_it_overwrites_nothing(folder: Path) -> None:
    (folder / "d.tar.gz").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        CliRunner().invoke(floe, ["diag", "--out", "d.tar.gz"], standalone_mode=False, catch_exceptions=False)
    assert (folder / "d.tar.gz").read_text() == "mine"
    with pytest.raises(StoreError):
        write(folder / "d.tar.gz", "d", {"a": "b"})
    assert (folder / "d.tar.gz").read_text() == "mine"


def test_a_disk_that_is_full_leaves_no_half_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(StoreError, match="No space left"), storing(tmp_path / "d.tar.gz"):
        write(tmp_path / "d.tar.gz", "d", {"a": "b"})
    assert list(tmp_path.iterdir()) == []


def _gone(path: Path) -> None:
    path.unlink()


def _damaged(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def _foreign(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


@pytest.mark.parametrize(("spoil", "kind"), [(_gone, "missing"), (_damaged, "damaged"), (_foreign, "damaged")])
def test_it_works_with_a_log_that_cannot_be_read_and_says_so_inside(folder: Path, spoil: Any, kind: str) -> None:
    spoil(folder / "log" / FILE)
    run("diag", "--out", "d.tar.gz")
    assert part(folder / "d.tar.gz", "database.json")["trouble"]["kind"] == kind
    assert "; " in members(folder / "d.tar.gz")["log.txt"]


def test_it_works_with_a_log_that_is_locked(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "log" / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        run("diag", "--out", "d.tar.gz")
    assert part(folder / "d.tar.gz", "database.json")["trouble"]["kind"] == "locked"


def test_a_part_that_fails_leaves_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: 1 / 0)
    run("diag", "--out", "d.tar.gz")
    assert part(folder / "d.tar.gz", "machine.json") == {"failed": "ZeroDivisionError: division by zero"}
    assert part(folder / "d.tar.gz", "database.json")["rows"]["events"] == 2


@pytest.mark.parametrize("toml", ["[mqtt", f"[mqtt]\npassword = ['{PASSWORD}']\n", "[nosuch]\n"])
def test_with_a_wrong_configuration_it_has_what_can_be_told_without(folder: Path, toml: str) -> None:
    (folder / "floe.toml").write_text(toml)
    done = CliRunner().invoke(floe, ["diag", "--out", "d.tar.gz"], standalone_mode=False)
    assert isinstance(done.exception, ConfigError)
    assert "floe.toml" in str(done.exception)
    found = members(folder / "d.tar.gz")
    assert set(found) == {"README.txt", "configuration.txt", "versions.json", "machine.json"}
    assert not [name for name, text in found.items() for secret in secrets_of(folder) if secret in text]


def test_the_check_of_a_large_log_is_left_out_and_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diag_parts, "MOST_CHECKED", 1)
    run("diag", "--out", "d.tar.gz")
    assert "run `floe check --json`" in part(folder / "d.tar.gz", "check.json")["left_out"]


def test_a_place_that_cannot_be_looked_into_is_refused_by_its_name(folder: Path) -> None:
    place = f"{'x' * 300}/d.tar.gz"
    done = CliRunner().invoke(floe, ["diag", "--out", place], standalone_mode=False)
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"--out {place}: {'x' * 300}: File name too long")
