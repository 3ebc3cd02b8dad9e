"""Texts and names that a page must show as they are: what Markdown, HTML, LaTeX, Streamlit and terminals would obey."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from floe.terminal import printable
from helpers.browser import Tab

BEGIN, END = "Qq", "qQ"
OUTSIDE = "http://evil.invalid"
TEXTS = tuple(
    f"{BEGIN}{text}{END}"
    for text in (
        "<script>alert(1)</script>",
        f"<img src='{OUTSIDE}/a.png' onerror='alert(2)'>",
        f"![picture]({OUTSIDE}/b.png) [here]({OUTSIDE}/c)",
        "[go](javascript:alert(3))",
        f"{OUTSIDE}/d www.evil.invalid",
        ":material/home: :red[red] :smile: :red-badge[x]",
        "$\\LaTeX$ $$x^2$$",
        "**bold** _slanted_ ~~gone~~ `code` ==mark==",
        "\n# heading\n- item\n> quote\n---\n| a | b |\n|---|---|\n",
        "\x1b[31mred\x1b[0m\x1b]0;owned\x07 \u202egnp.exe",
        "\"'); DROP TABLE events;-- {{x}} {x} %s &lt;b&gt; \\*",
    )
)
NAMES = ("__proto__", "-rf", "_a_", "x" * 64, "constructor")
# What programs read and no peer writes as he likes: times, states, JSON, hashes, by what rows are found.
READ = {
    "_sqlite_migrations": None,
    "federations": {"federation", "lineage", "suite", "schema", "created_at"},
    "devices": {"device", "key", "state", "first_seen", "last_seen", "task", "model_sha256"},
    "rounds": {"lineage", "task", "state", "base_sha256", "plan", "bar", "expected", "opened_at", "closed_at"},
    "updates": {"transfer", "device", "lineage", "task", "outcome", "sha256", "suite", "time"},
    "models": {"lineage", "sha256", "file", "created_at"},
    "events": {"time", "level", "device"},
    "control": {"lineage", "held", "opens", "plan", "plan_over", "model", "model_after"},
    "operators": {"last_seen"},
    "refusals": {"device", "first", "last"},
    "vitals": {"member", "time", "model_sha256"},
    "journal": {"time", "said_at", "device", "level"},
    "uploads": {"device", "task", "since"},
    "standing": {"lineage", "task", "stage", "held", "deadline_at", "changed_at", "seen_at", "plan"},
    "broker": {"topic", "time"},
}
_TEXT_OF = "main => main.textContent + ' ' + [...main.querySelectorAll('input, textarea')].map(e => e.value).join(' ')"
_MADE = """main => [...main.querySelectorAll('*')].filter(e => e.matches('script, .katex')
    || [...e.attributes].some(a => /^on/.test(a.name) || /^(src|href|action)$/.test(a.name)
        && /evil|javascript:/.test(a.value))).map(e => e.outerHTML)"""


def spoil(log: Path) -> None:
    """Hostile names for the devices of a log, and hostile text in every column that is text and none of `READ`."""
    texts = itertools.cycle(TEXTS)
    with closing(sqlite3.connect(log)) as db, db:
        _rename(db)
        time = db.execute("SELECT max(time) FROM events").fetchone()[0]
        for text, device, level in zip(
            TEXTS * 2, itertools.cycle(NAMES), itertools.cycle(("warning", "error", "info"))
        ):
            row = (time, level, device, text)
            db.execute("INSERT INTO events (time, level, kind, device, text) VALUES (?, ?, 'rejected', ?, ?)", row)
            db.execute("INSERT INTO journal (time, said_at, level, device, text) VALUES (?, ?, ?, ?, ?)", (time, *row))
        db.execute("INSERT OR REPLACE INTO broker VALUES ('$SYS/broker/version', '', ?)", (time,))
        for table, column in _texts_of(db):
            for (row_id,) in db.execute(f"SELECT rowid FROM {table}").fetchall():
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (next(texts), row_id))


def assert_shown_as_text(tab: Tab) -> set[str]:
    """That nothing of a hostile text was obeyed on this page; which of them stand there, whole."""
    assert not (made := tab.main.evaluate(_MADE)), made
    known = {_spread(form): text for text in TEXTS for form in (text, printable(text))}
    found = re.findall(f"{BEGIN}.*?{END}", tab.main.evaluate(_TEXT_OF), re.DOTALL)
    assert not (other := {text for text in found if _spread(text) not in known}), other
    return {known[_spread(text)] for text in found}


def _rename(db: sqlite3.Connection) -> None:
    known = [row[0] for row in db.execute("SELECT device FROM devices ORDER BY 1")]
    names = dict(zip(known, NAMES, strict=False))
    for table in ("devices", "updates", "events", "refusals", "journal", "uploads"):
        db.executemany(f"UPDATE {table} SET device = ? WHERE device = ?", [(new, old) for old, new in names.items()])
    columns = ", ".join(row[1] for row in db.execute("PRAGMA table_info(devices)") if row[1] != "device")
    copy = f"INSERT INTO devices (device, {columns}) SELECT ?, {columns} FROM devices WHERE device = ?"
    db.executemany(copy, [(name, NAMES[0]) for name in NAMES[len(known) :]])
    db.executemany("UPDATE vitals SET member = ? WHERE member = ?", [(new, old) for old, new in names.items()])
    for row_id, expected in db.execute("SELECT rowid, expected FROM rounds").fetchall():
        renamed = json.dumps([names.get(name, name) for name in json.loads(expected)])
        db.execute("UPDATE rounds SET expected = ? WHERE rowid = ?", (renamed, row_id))


def _texts_of(db: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        (table, column)
        for table in tables
        if READ.get(table, set()) is not None
        for _, column, kind, *_ in db.execute(f"PRAGMA table_info({table})")
        if kind == "TEXT" and column not in (READ.get(table) or set())
    ]


def _spread(text: str) -> str:
    """Without its white space, which HTML does not keep."""
    return "".join(text.split())
