"""The pages where there is nothing to show, or nothing to read: they say so in words, and no page fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from aggregator.log import Log
from floe.settings import Config
from floe.store import FILE, open_log
from ui.serving import serve_for

PAGES = ("overview", "network", "log")
AT = "2026-01-01T00:00:00.000Z"
JOURNAL = f"INSERT INTO journal (time, said_at, device, level, text) VALUES ('{AT}', '{AT}', 'dev', ?, ?)"
HOSTILE = "<b>x</b> **y** :red[z] [a](http://evil)\n\x1b[31m" + "w" * 400


def page(name: str) -> AppTest:
    """A page below the head that every page has."""

    def script(name: str) -> None:
        import importlib

        from ui.parts import health

        health.show()
        importlib.import_module(f"ui.pages.{name}").show()

    drawn = AppTest.from_function(script, args=(name,), default_timeout=60).run()
    assert not drawn.exception, drawn.exception
    return drawn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    serve_for(Config(folder=tmp_path))
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def empty(folder: Path) -> None:
    open_log(folder / FILE).close()


def damaged(folder: Path) -> None:
    (folder / FILE).write_bytes(b"no database " * 1000)


def newer(folder: Path) -> None:
    empty(folder)
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('floe', 'm999_new', '')")
        db.commit()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "Nothing yet"),
        (empty, "Nothing yet"),
        (damaged, "Damaged"),
        (newer, "Newer"),
    ],
    ids=["no log", "an empty log", "a damaged log", "a log of a newer Floe"],
)
def test_a_page_says_in_words_what_there_is_not(
    folder: Path, make: Callable[[Path], None], words: str, name: str
) -> None:
    make(folder)
    drawn = page(name)
    said = [one.value for kind in (drawn.info, drawn.warning, drawn.error, drawn.success) for one in kind]
    assert len(said) == 1
    assert said[0].startswith(f"**{words}**")
    assert [one.value for one in drawn.title] == [name.title()]


@pytest.mark.parametrize("name", PAGES)
def test_text_of_devices_reaches_no_place_that_reads_markdown(folder: Path, name: str) -> None:
    with closing(Log(folder)) as log:
        log.federation("floe", "main", 1, "plaintext")
        log.event("error", "refused", HOSTILE, device="dev", reason="signature")
        log.db.execute(JOURNAL, ["error", HOSTILE])
        log.db.execute(
            "INSERT INTO broker VALUES ('$SYS/broker/version', ?, '2026-01-01T00:00:00.000Z')", [HOSTILE[:100]]
        )
    drawn = page(name)
    places = (drawn.markdown, drawn.caption, drawn.info, drawn.warning, drawn.error, drawn.success, drawn.subheader)
    assert not [one for kind in places for one in kind if "evil" in one.value]
    assert not [one for one in drawn.metric if "evil" in one.label + str(one.value)]


def test_the_overview_tells_what_devices_have_said_went_wrong(folder: Path) -> None:
    with closing(Log(folder)) as log:
        log.federation("floe", "main", 1, "plaintext")
        log.db.execute(JOURNAL, ["info", "fine"])
    assert "Nothing: no warning and no error in the log" in captions(page("overview"))
    with closing(Log(folder)) as log:
        log.db.execute(JOURNAL, ["warning", "slow"])
        log.event("error", "refused", "bad weights", device="b", reason="weights")
    drawn = page("overview")
    [table] = [one.value for one in drawn.dataframe if "Reason" in one.value]
    assert list(zip(table["Device"], table["Kind"], table["What"], strict=True)) == [
        ("b", "refused", "bad weights"), ("dev", "journal", "slow"),
    ]  # fmt: skip
    assert "Nothing" not in captions(drawn)


def captions(drawn: AppTest) -> str:
    return " ".join(one.value.replace("\\", "") for one in drawn.caption)


def test_the_log_finds_by_level_source_device_and_text(folder: Path) -> None:
    with closing(Log(folder)) as log:
        log.pin("b", "key")
        log.event("info", "accepted", "fine", device="a")
        log.event("error", "refused", "bad weights", device="b", reason="weights")
        log.db.execute(JOURNAL, ["warning", "slow"])
    drawn = page("log")

    def shown() -> list[str]:
        return sorted(drawn.dataframe[0].value["What"])

    assert shown() == ["bad weights", "fine", "slow"]
    drawn.selectbox(key="log level").select("▲ warnings and ✖ errors").run()
    assert shown() == ["bad weights", "slow"]
    drawn.selectbox(key="log source").select("Lines of the devices").run()
    assert shown() == ["slow"]
    drawn.selectbox(key="log source").select("Events of the aggregator").run()
    assert shown() == ["bad weights"]
    drawn.selectbox(key="log level").select("All levels").run()
    drawn.text_input(key="log text").input("FIN").run()
    assert shown() == ["fine"]
    drawn.text_input(key="log text").input("").run()
    drawn.selectbox(key="log source").select("All sources").run()
    drawn.selectbox(key="log device").select("b").run()
    assert shown() == ["bad weights"]


def test_the_log_goes_back_and_forth_in_pages(folder: Path) -> None:
    with closing(Log(folder)) as log:
        for n in range(450):
            log.event("info", "accepted", f"event {n}")
    drawn = page("log")

    def ends() -> tuple[str, str]:
        shown = list(drawn.dataframe[0].value["What"])
        return shown[0], shown[-1]

    assert ends() == ("event 449", "event 250")
    drawn.button(key="log older").click().run()
    assert ends() == ("event 249", "event 50")
    drawn.button(key="log older").click().run()
    assert ends() == ("event 49", "event 0")
    assert drawn.button(key="log older").disabled
    drawn.button(key="log newer").click().run()
    assert ends() == ("event 249", "event 50")
    with closing(Log(folder)) as log:
        log.event("info", "accepted", "event 450")
    drawn.run()
    assert ends() == ("event 249", "event 50"), "an older page stands still"
    drawn.button(key="log newest").click().run()
    assert ends() == ("event 450", "event 251")
    with closing(Log(folder)) as log:
        log.event("info", "accepted", "event 451")
    drawn.run()
    assert ends() == ("event 451", "event 251"), "what is new comes on top"
