"""What goes into the archive of `floe diag`, a function each. None reads a key file, a password file or data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from floe import __version__
from floe.check import look_through
from floe.settings import SECTIONS, Config
from floe.store import FILE
from ui.log_command import line
from ui.queries.events import page
from ui.reading import read

Part = Callable[[Config], Any]
HIDDEN = "(hidden)"
LINES, ROUNDS, FILES = 2000, 20, 5000
MOST_CHECKED = 500_000_000  # bytes of a log: above, `floe check` takes minutes
SECRET_KEYS = ("password", "token", "passphrase")

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
MIGRATIONS = "SELECT name, applied_at FROM _sqlite_migrations ORDER BY id"
LAST_ROUNDS = """
SELECT lineage, epoch, round, task, state, base_sha256, plan, bar, json_array_length(expected) AS expected, accepted,
    refused, bytes_up, bytes_down, opened_at, closed_at, seconds
FROM rounds ORDER BY rowid DESC LIMIT :limit
"""


def versions(config: Config) -> dict[str, Any]:
    """Of Floe, Python, all that is installed beside it, Mosquitto, the system and the processor."""
    packages = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    return {
        "floe": __version__, "python": sys.version, "sqlite": sqlite3.sqlite_version,
        "mosquitto": _mosquitto(config.broker.mosquitto), "system": platform.platform(),
        "distribution": _distribution(), "processor": _processor(), "cores": os.cpu_count(),
        "time_zone": time.strftime("%Z %z"),
        "packages": dict(sorted(packages.items())),
    }  # fmt: skip


def configuration(config: Config) -> dict[str, Any]:
    """As it is in effect, from file, environment and flags; what is set and secret is hidden."""
    found: dict[str, Any] = msgspec.to_builtins({name: getattr(config, name) for name in SECTIONS})
    for keys in found.values():
        for key, value in keys.items():
            if value and any(word in key for word in SECRET_KEYS):
                keys[key] = HIDDEN
    set_by = sorted(name for name in os.environ if name.startswith("FLOE_"))
    return {"file": str(config.file or ""), "folder": str(config.folder), "environment": set_by, **found}


def log(config: Config) -> str:
    """The newest lines, oldest first."""
    found = read(config, lambda db: page(db, limit=LINES))
    if found.answer is None:
        return f"{found.path}: {found.trouble}\n"
    return "".join(f"{line(entry)}\n" for entry in reversed(found.answer.entries))


def database(config: Config) -> dict[str, Any]:
    """What the log holds: rows of every table, migrations, SQLite's own quick check, the last rounds."""
    path = config.path(config.paths.log) / FILE
    sizes = {found.name: found.stat().st_size for found in sorted(path.parent.glob(f"{FILE}*"))}
    found = read(config, _summary)
    trouble = {"kind": found.trouble.kind, "text": str(found.trouble)} if found.trouble else None
    about = {"path": str(path), "bytes": sizes, "aggregator_running": found.running, "last_event": found.last_event}
    return {**about, "trouble": trouble, **(found.answer or {})}


def files(config: Config) -> str:
    """Names, sizes and modes of what is in the folders for state, log and models; never what is inside."""
    lines = []
    for folder in dict.fromkeys(
        config.path(name) for name in (config.paths.state, config.paths.log, config.paths.models)
    ):
        listed = list(_listed(folder))
        lines += [f"{folder}: {len(listed)} files and folders", *listed[:FILES], ""]
    return "\n".join(lines)


def machine(config: Config) -> dict[str, Any]:
    """How this machine is now."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(config.folder))
    return {
        "cpu_percent": psutil.cpu_percent(interval=0.5), "load": psutil.getloadavg(), "boot_time": psutil.boot_time(),
        "memory": memory._asdict(), "swap": psutil.swap_memory()._asdict(), "disk": disk._asdict(),
        "temperatures": {name: [one.current for one in found] for name, found in _temperatures().items()},
        "open_files_limit": psutil.Process().rlimit(psutil.RLIMIT_NOFILE),
    }  # fmt: skip


def check(config: Config) -> dict[str, Any]:
    """What `floe check` says, of a log that it looks through in seconds."""
    log = config.path(config.paths.log) / FILE
    if log.is_file() and (size := log.stat().st_size) > MOST_CHECKED:
        return {"left_out": f"the log has {size} bytes, more than {MOST_CHECKED}: run `floe check --json`"}
    return look_through(config).told()


PARTS: dict[str, Part] = {
    "versions.json": versions,
    "configuration.json": configuration,
    "log.txt": log,
    "database.json": database,
    "files.txt": files,
    "machine.json": machine,
    "check.json": check,
}


# What needs no configuration of one's own.
ANYWHERE = {name: PARTS[name] for name in ("versions.json", "machine.json")}


def _summary(db: sqlite3.Connection) -> dict[str, Any]:
    names = [row["name"] for row in db.execute(TABLES)]
    return {
        "rows": {name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names},  # noqa: S608
        "migrations": [dict(row) for row in db.execute(MIGRATIONS)],
        "pages": {
            name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "journal_mode")
        },
        "quick_check": [row[0] for row in db.execute("PRAGMA quick_check(20)")],
        "last_rounds": [dict(row) for row in db.execute(LAST_ROUNDS, {"limit": ROUNDS})],
    }


def _listed(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        for name in sorted([*folders, *names]):
            path = Path(parent) / name
            try:
                about = path.lstat()
            except OSError as error:
                yield f"  ? {path.relative_to(folder)}: {error.strerror}"
                continue
            changed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(about.st_mtime))
            head = f"  {stat.filemode(about.st_mode)} {about.st_uid} {about.st_size:>12} {changed}"
            yield f"{head} {path.relative_to(folder)}"


def _mosquitto(program: str) -> str:
    try:
        done = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program}: {error}"
    return (done.stdout or done.stderr).partition("\n")[0]


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _processor() -> str:
    """The first line of /proc/cpuinfo that names it; boards with ARM say `Model` or `Hardware`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (text.partition(":")[2].strip() for text in lines if text.startswith(("model name", "Model", "Hardware")))
    return next(named, platform.machine())


def _temperatures() -> dict[str, Any]:
    return psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
