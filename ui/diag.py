"""`floe diag`: one archive for a bug report. What goes into it is in `ui.diag_parts`; no secret does."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from floe.cli import config_options
from floe.errors import ConfigError
from floe.files import check_place, storing
from floe.settings import Config
from floe.terminal import size_words
from ui import diag_parts

NOTE = (
    "It holds no key and no password. It does hold: names of hosts, devices, files and of this machine, and log lines. "
    "Look through it before you give it away: tar -tzf, tar -xzf."
)


BROKEN = (
    "The configuration is wrong, so that nothing is known of log, state and models. What is wrong is not repeated "
    "here, as it may be a password: any command tells it.\n"
)


def diag_without(error: ConfigError, out: Path | None) -> None:
    """What can be told without a configuration. Raises the error that there was, when that is written."""
    _archive(out, Config(), diag_parts.ANYWHERE, {"configuration.txt": BROKEN})
    raise ConfigError(f"{error}; the archive has nothing of log, state and models for that") from None


@click.command()
@config_options(lineage="rounds.lineage", or_else=diag_without)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="default: floe-diag-<time>.tar.gz, here")
def diag(config: Config, out: Path | None) -> None:
    """Write one archive for a bug report: versions, configuration without secrets, log, database summary, files' sizes.

    It works when the log is missing, damaged or locked, too, and overwrites nothing; with a configuration that is wrong
    it writes what it can, and ends with 2. Of a large log the check is left out.
    """
    _archive(out, config, diag_parts.PARTS, {})


def _archive(out: Path | None, config: Config, makers: Mapping[str, diag_parts.Part], more: Mapping[str, str]) -> None:
    moment = time.strftime("%Y%m%d-%H%M%S")
    path = out or Path(f"floe-diag-{moment}.tar.gz")
    check_place(path, "--out")
    if os.path.lexists(path):
        raise ConfigError(f"--out {path}: exists already; name another file")
    parts = {name: _collected(make, config) for name, make in makers.items()}
    write(path, f"floe-diag-{moment}", {"README.txt": NOTE + "\n", **more, **parts})
    click.echo(f"{path} written, {size_words(path.stat().st_size)}. {NOTE}")


def write(path: Path, folder: str, parts: Mapping[str, str]) -> None:
    """A new .tar.gz that only this account can read. Raises `StoreError`; then it is not there."""
    with storing(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
                for name, text in parts.items():
                    content = text.encode("utf-8", "backslashreplace")
                    about = tarfile.TarInfo(f"{folder}/{name}")
                    about.size, about.mode, about.mtime = len(content), 0o600, int(time.time())
                    archive.addfile(about, io.BytesIO(content))
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _collected(make: diag_parts.Part, config: Config) -> str:
    """A part as text; what goes wrong with it stands in its place, as the others may be what is needed."""
    try:
        found: Any = make(config)
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
    text = found if isinstance(found, str) else json.dumps(found, indent=2, default=str) + "\n"
    password = config.mqtt.password
    return text.replace(password, diag_parts.HIDDEN) if password else text
