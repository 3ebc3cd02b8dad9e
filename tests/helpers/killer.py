"""`floe ...` in a process that notes every step by which it touches the world, or ends itself by SIGKILL at one.

    python -m helpers.killer note FILE -- aggregator          each new step, one a line, in the order in which they come
    python -m helpers.killer kill "STEP" -- client --id b     dies at STEP; "STEP #3": when it comes for the third time

What is between two steps is memory alone, so a process that dies anywhere leaves the world as one of these steps does:

    in write FILE        half of a write is done (also of a chunk)
    after fsync FILE     after rename FILE     after unlink FILE     after mkdir FOLDER     after rmdir FOLDER
    before commit SQL    after commit SQL      a transaction of SQLite, by the tables that it changes
    after publish TOPIC  the message is on its way; TOPIC is the kind of topic
    before ack TOPIC     everything about a message is done but to acknowledge it

A step ends with " in FUNCTION", the innermost function of a process (aggregator/, edge_client/) that it came from.
Numbers, hashes and names of devices are `*`: equal steps of different rounds have one name.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from floe.session import Received, Session
from floe.topics import parse

PROCESSES = ("/aggregator/", "/edge_client/")
SHARED = {"_save", "_forget", "_drop", "_insert"}  # helpers of many: their callers say more
HERE = f"{Path.cwd()}/"
CHANGES = re.compile(r"\s*(?i:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM|CREATE TABLE(?: IF NOT EXISTS)?)\s+\W?(\w+)")
TOGETHER = {"flush": "what waited", "_write_down": "what is watched"}  # in them tables come as it happens
PROBE = re.compile("t[0-9a-f]{32}")  # by which sqlite-utils finds out, once, what SQLite can do


class Steps:
    """Where this process is. `target`: it dies there; otherwise each new step goes to `notes`."""

    def __init__(self, target: str = "", notes: Path | None = None) -> None:
        self._target, _, nth = target.partition(" #")
        self._nth = int(nth or 1)
        self._notes = None if notes is None else os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def now(self, step: str) -> bool:
        """Count a step; whether it is the one to die at."""
        name = f"{step} in {_function()}"
        with self._lock:
            self._seen[name] += 1
            if self._notes is not None and self._seen[name] == 1:
                os.write(self._notes, f"{name}\n".encode())
            return name == self._target and self._seen[name] == self._nth

    def reach(self, step: str) -> None:
        """Count a step, and die if it is the one."""
        if self.now(step):
            die()


STEPS = Steps()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def patch() -> None:
    """From now on the primitives of this process tell `STEPS`."""
    Path.open = _open  # type: ignore[assignment,method-assign]
    os.fdopen = _fdopen
    os.pwrite = _pwrite
    for module, name, words in (
        (os, "fsync", "after fsync"),
        (os, "unlink", "after unlink"),
        (os, "remove", "after unlink"),
        (os, "mkdir", "after mkdir"),
        (os, "rmdir", "after rmdir"),
        (os, "replace", "after rename"),
        (os, "rename", "after rename"),
        (os, "link", "after link"),
    ):
        setattr(module, name, _telling(getattr(module, name), words, last=name in ("replace", "rename", "link")))
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **more: connect(*args, **{"factory": _Connection, **more})
    _patch_session()


def _patch_session() -> None:
    publish, ack = Session.publish, Session.ack

    def published(self: Session, topic: str, payload: bytes, *, retain: bool = False) -> None:
        publish(self, topic, payload, retain=retain)
        if STEPS.now(f"after publish {type(parse(topic)).__name__}"):
            end = time.monotonic() + 1
            while self._client.want_write() and time.monotonic() < end:
                time.sleep(0.001)
            die()

    def acknowledged(self: Session, received: Received) -> None:
        if not received.topic.startswith("$SYS/"):  # the broker's own figures come when they like
            STEPS.reach(f"before ack {type(parse(received.topic)).__name__}")
        ack(self, received)

    Session.publish, Session.ack = published, acknowledged  # type: ignore[method-assign]


def _telling(function: Any, words: str, *, last: bool) -> Any:
    def call(*args: Any, **more: Any) -> Any:
        file = _file(args[1] if last else args[0], more.get("dir_fd"))
        result = function(*args, **more)
        if file:
            STEPS.reach(f"{words} {file}")
        return result

    return call


class _File(io.FileIO):
    """The raw file below Python's buffers: its writes are the system's."""

    def write(self, data: Any) -> int:
        if (file := _file(self.fileno())) and STEPS.now(f"in write {file}"):
            super().write(memoryview(data).cast("B")[: len(data) // 2])
            die()
        return super().write(data)


_path_open, _os_fdopen, _os_pwrite = Path.open, os.fdopen, os.pwrite


def _open(self: Path, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
    if not set(mode) & set("wax+"):
        return _path_open(self, mode, buffering, *more, **named)
    return _buffered(_File(self, mode.replace("b", "").replace("t", "")), mode, buffering, **named)


def _fdopen(descriptor: int, mode: str = "r", buffering: int = -1, **named: Any) -> Any:
    if not set(mode) & set("wax+"):
        return _os_fdopen(descriptor, mode, buffering, **named)
    return _buffered(_File(descriptor, mode.replace("b", "")), mode, buffering, **named)


def _buffered(raw: _File, mode: str, buffering: int, **named: Any) -> Any:
    if buffering == 0:
        return raw
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    if "b" in mode:
        return buffered
    return io.TextIOWrapper(buffered, named.get("encoding"), named.get("errors"), named.get("newline"))


def _pwrite(descriptor: int, data: bytes, offset: int) -> int:
    if (file := _file(descriptor)) and STEPS.now(f"in write {file}"):
        _os_pwrite(descriptor, data[: len(data) // 2], offset)
        die()
    return _os_pwrite(descriptor, data, offset)


class _Connection(sqlite3.Connection):
    """Tells of commits: at the statement that ends a transaction, and of statements that are one of their own."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._changed: dict[str, None] = {}

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if (found := CHANGES.match(sql)) and not PROBE.fullmatch(found[1]):
            self._changed[found[1].lower()] = None
        ends = self._changed and (sql.upper().startswith("COMMIT") or (found and self.isolation_level is None))
        what = TOGETHER.get(_function()) or ", ".join(self._changed)
        if ends:
            STEPS.reach(f"before commit {what}")
        cursor = super().execute(sql, *parameters)
        if ends:
            self._changed.clear()
            STEPS.reach(f"after commit {what}")
        return cursor


def _file(what: Any, folder: int | None = None) -> str:
    """A path, or a descriptor, from the federation's folder; empty for what is elsewhere."""
    if isinstance(what, int):
        path = str(Path(f"/proc/self/fd/{what}").readlink())
    else:
        base = str(Path(f"/proc/self/fd/{folder}").readlink()) if folder is not None else str(Path.cwd())
        path = os.path.join(base, os.fspath(what))  # noqa: PTH118 (what may be absolute)
    return normal(path.removeprefix(HERE)) if path.startswith(HERE) else ""


def normal(path: str) -> str:
    """A path without what differs from round to round."""
    path = re.sub(r"(incoming|spool/[^/]+|devices)/(\.?)[^./@]+([.@])", r"\1/\2*\3", path)
    path = re.sub(r"[0-9a-f]{32,}", "*", path)
    return re.sub(r"\d+", "*", path)


def _function() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if any(part in file for part in PROCESSES) and frame.f_code.co_name not in SHARED:
            return frame.f_code.co_name
        frame = frame.f_back
    return "the start"


def main() -> None:
    """As the docstring of this file says; everything after `--` are arguments of floe."""
    at = sys.argv.index("--")
    how, what = sys.argv[1:at]
    global STEPS
    STEPS = Steps(target=what) if how == "kill" else Steps(notes=Path(what))
    patch()
    from floe import cli

    sys.argv = ["floe", *sys.argv[at + 1 :]]
    cli.main()


if __name__ == "__main__":
    main()
