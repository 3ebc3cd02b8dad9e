"""A value that Floe never writes is named where it stands: no page fails of it, and the rest is shown."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from helpers.big import small_log
from streamlit.testing.v1 import AppTest

from floe.errors import StoreError
from floe.settings import Config
from floe.store import FILE
from ui.log_command import log
from ui.parts import live
from ui.parts.text import ago, moment
from ui.queries import standing
from ui.queries.network import Operator
from ui.queries.rows import Spoilt, made
from ui.reading import read
from ui.serving import serve_for
from ui.status_command import status

PAGES = ("overview", "devices", "device", "models", "network", "log", "data", "control")
TIMES = (
    "devices.last_seen", "devices.first_seen", "events.time", "models.created_at", "standing.seen_at",
    "standing.deadline_at", "journal.time", "vitals.time", "updates.time", "rounds.opened_at", "uploads.since",
    "broker.time", "operators.last_seen", "refusals.last",
)  # fmt: skip
NUMBERS = (
    "devices.bytes", "devices.rounds", "devices.threshold", "devices.round", "updates.accuracy", "updates.bytes",
    "models.bytes", "models.loss", "models.samples", "rounds.seconds", "rounds.bytes_up", "standing.needed",
    "standing.last", "vitals.cpu_percent",
)  # fmt: skip
TEXTS = ("events.text", "events.kind", "events.level", "devices.software", "devices.state", "updates.detail")
SPOILS: dict[str, tuple[Sequence[str], str]] = {
    "no times": (TIMES, "'garbage'"),
    "no days": (TIMES, "'2026-02-31T00:00:00.000Z'"),
    "the year 9999": (TIMES, "'9999-12-31T23:59:59.999Z'"),
    "the year 1": (TIMES, "'0001-01-01T00:00:00.000Z'"),
    "text for numbers": (NUMBERS, "'hot'"),
    "bytes for numbers": (NUMBERS, "x'00ff'"),
    "numbers beyond all": (("devices.threshold", "updates.accuracy", "models.loss", "vitals.cpu_percent"), "9e999"),
    "no UTF-8": (TEXTS, "cast(x'ff00fe41' as text)"),
    "bytes for texts": (TEXTS, "x'00ff'"),
    "no JSON": (("rounds.expected", "rounds.plan", "standing.plan"), "'{not json'"),
    "other JSON": (("rounds.expected", "rounds.plan", "standing.plan"), "'[7]'"),
}


def page(name: str) -> AppTest:
    """A page below its head."""

    def script(name: str) -> None:
        import importlib

        from ui import frame

        frame._head()
        importlib.import_module(f"ui.pages.{name}").show(*(("dev-00001",) if name == "device" else ()))

    return AppTest.from_function(script, args=(name,), default_timeout=60).run()


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    serve_for(Config(folder=tmp_path))
    (tmp_path / "log").mkdir()
    shutil.copy(small_log(tmp_path_factory), tmp_path / "log" / FILE)
    return tmp_path


def spoil(folder: Path, columns: Sequence[str], value: str) -> None:
    with closing(sqlite3.connect(folder / "log" / FILE)) as db:
        for column in columns:
            table, name = column.split(".")
            db.execute(f"UPDATE {table} SET {name} = {value}")
        db.commit()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("how", SPOILS)
def test_a_page_is_shown_whatever_the_log_holds(folder: Path, how: str, name: str) -> None:
    spoil(folder, *SPOILS[how])
    drawn = page(name)
    assert not drawn.exception, drawn.exception
    assert [one.value for one in drawn.error if live.DEFECT in one.value] == []
    assert drawn.title


@pytest.mark.parametrize("how", SPOILS)
def test_status_and_log_show_it_or_end_with_6_and_name_it(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(folder, *SPOILS[how])
    monkeypatch.chdir(folder)
    for command, arguments in ((status, []), (status, ["--json"]), (log, []), (log, ["--json"])):
        done = CliRunner().invoke(command, arguments)
        assert done.exception is None or isinstance(done.exception, StoreError), (how, done.exception)
        if arguments and done.stdout:
            assert "garbage" not in done.stdout.replace("?garbage", "")
            [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("text", ["garbage", "2026-02-31T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_what_is_no_time_in_a_zone_is_no_time_of_the_log_and_shown_as_it_is(text: str, zone: str) -> None:
    assert moment(text, ZoneInfo(zone)).lstrip("?0").startswith(text[:4].lstrip("0"))
    assert ago(text, datetime.now(UTC)).endswith((text, "ago"))
    with pytest.raises(Spoilt, match="Expected a time"):
        made(Operator, ("op", text))


@pytest.mark.parametrize("text", ["1970-01-01T00:00:00.000Z", "2024-02-29T23:59:59+00:00", "2999-12-31T00:00:00.12Z"])
def test_a_time_of_the_log_is_one(text: str) -> None:
    assert made(Operator, ("op", text)) == Operator("op", text)


def test_what_is_spoilt_is_named_with_its_row(folder: Path) -> None:
    spoil(folder, ["standing.needed"], "'many'")
    found = read(Config(folder=folder), lambda db: standing.standing(db, "main"))
    assert found.trouble is not None
    assert found.trouble.kind == "damaged"
    assert "needed" in found.trouble.text
    assert "Expected `int`, got `str`" in found.trouble.text


def test_a_defect_is_said_once_in_its_place_and_the_rest_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script() -> None:
        import streamlit as st

        from ui.parts.live import live

        for _ in range(3):
            live(lambda db: st.text(str(1 // int(db.total_changes))))
        live(lambda db: st.text("the rest"))

    drawn = AppTest.from_function(script, default_timeout=60).run()
    assert not drawn.exception
    assert len([one for one in drawn.error if "ZeroDivisionError" in one.value]) == 3
    assert [one.value for one in drawn.text] == ["the rest"]
    assert capsys.readouterr().err.count("ZeroDivisionError") == 1
