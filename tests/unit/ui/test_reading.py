"""What is wrong with a log is said in one value: missing, locked, damaged, newer, older, unreadable."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from aggregator.log import Log
from floe.errors import StoreError
from floe.migrations import known
from floe.service import only_one
from floe.settings import Config, Rounds
from floe.store import FILE
from floe.trouble import Trouble
from ui import reading
from ui.reading import read


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(folder=tmp_path)


@pytest.fixture
def path(config: Config) -> Path:
    """A log with one event that nobody has open."""
    folder = config.path(config.paths.log)
    with closing(Log(folder)) as log:
        log.event("info", "opened", "train 1 with a")
    return folder / FILE


def count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) AS n FROM events").fetchone()["n"])


def trouble(config: Config) -> Trouble:
    found = read(config, count)
    assert found.answer is None
    assert found.trouble is not None
    assert found.trouble.way_out
    with pytest.raises(StoreError, match=str(found.path)):
        found.checked()
    return found.trouble


def test_a_whole_log_answers_and_says_when_its_last_event_was(config: Config, path: Path) -> None:
    found = read(config, count)
    assert (found.trouble, found.checked(), found.path) == (None, 1, path)
    with closing(sqlite3.connect(path)) as db:
        assert found.last_event == db.execute("SELECT time FROM events").fetchone()[0]


def test_what_the_aggregator_writes_meanwhile_is_seen_the_next_time_and_not_in_between(
    config: Config, path: Path
) -> None:
    with closing(Log(path.parent)) as log:

        def twice(db: sqlite3.Connection) -> tuple[int, int]:
            before = count(db)
            log.event("info", "closed", "train 1 closed")
            return before, count(db)

        assert read(config, twice).checked() == (1, 1)
        assert read(config, count).checked() == 2


def test_it_may_be_asked_from_changing_threads(config: Config, path: Path) -> None:
    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: read(config, count).checked()).result() == 1


def test_a_log_that_nobody_has_written_is_missing(config: Config) -> None:
    assert trouble(config).kind == "missing"
    assert not config.path(config.paths.log).exists()


def test_a_file_without_tables_is_missing_too(config: Config) -> None:
    path = config.path(config.paths.log) / FILE
    path.parent.mkdir()
    path.touch()
    assert trouble(config).kind == "missing"


def test_a_log_that_somebody_holds_for_himself_is_locked(
    config: Config, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BUSY_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        assert trouble(config).kind == "locked"
    assert read(config, count).checked() == 1


def test_a_file_that_is_no_database_is_damaged(config: Config, path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)
    assert trouble(config).kind == "damaged"


def test_pages_that_are_not_whole_are_damaged_also_when_only_the_question_finds_them(
    config: Config, path: Path
) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)  # all but the schema's first page
    path.write_bytes(content)
    assert trouble(config).kind == "damaged"


def test_another_database_is_not_taken_for_a_log(config: Config) -> None:
    path = config.path(config.paths.log) / FILE
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (x)")
    found = trouble(config)
    assert found.kind == "damaged"
    assert "not Floe's log" in found.text


def test_an_empty_file_with_a_journal_is_damaged(config: Config) -> None:
    path = config.path(config.paths.log) / FILE
    path.parent.mkdir()
    path.touch()
    path.with_name(f"{FILE}-wal").write_bytes(b"x")
    assert trouble(config).kind == "damaged"


def test_a_migration_that_is_not_known_is_of_a_newer_floe(config: Config, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('floe', 'm999_more', '')")
    found = trouble(config)
    assert found.kind == "newer"
    assert "m999_more" in found.text


def test_a_migration_that_is_missing_is_of_an_older_one(config: Config, path: Path) -> None:
    last = max(known())
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM _sqlite_migrations WHERE name = ?", (last,))
    found = trouble(config)
    assert found.kind == "older"
    assert last in found.text


def test_a_folder_in_its_place_is_unreadable(config: Config) -> None:
    (config.path(config.paths.log) / FILE).mkdir(parents=True)
    assert trouble(config).kind == "unreadable"


def test_a_file_without_the_right_to_read_is_unreadable(
    config: Config, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may read everything
    assert trouble(config).kind == "unreadable"


@pytest.mark.parametrize("code", ["SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR"])
def test_what_sqlite_may_not_do_beside_the_file_is_unreadable(config: Config, path: Path, code: str) -> None:
    def ask(db: sqlite3.Connection) -> int:
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = getattr(sqlite3, code) | 1 << 8  # an extended code
        raise error

    found = read(config, ask).trouble
    assert found is not None
    assert found.kind == "unreadable"


def test_a_question_that_is_wrong_is_not_the_files_fault(config: Config, path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        read(config, lambda db: db.execute("SELECT * FROM pumps"))


def test_whether_the_aggregator_runs_is_read_from_its_lock(config: Config, path: Path) -> None:
    state = config.path(config.paths.state) / "aggregator-main"
    assert read(config, count).running is None
    with only_one(state, "aggregator"):
        assert read(config, count).running is True
        other = msgspec.structs.replace(config, rounds=Rounds(lineage="other"))
        assert read(other, count).running is None
    assert read(config, count).running is False
