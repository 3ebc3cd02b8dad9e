"""`floe check`: whether what is kept on disk is as it was written, and goes together. Reads; repairs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from floe.check_papers import check_enrolled, check_logins
from floe.cli import check_of, config_options
from floe.errors import ConfigError, DamageError
from floe.findings import Findings
from floe.identity import read_secret
from floe.settings import Config
from floe.store import FILE
from floe.terminal import printable


@click.command()
@config_options()
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def check(config: Config, as_json: bool) -> None:
    """Verify all that is here: the aggregator's database, models and spool against each other, each device's outbox.

    It changes nothing, may run at any time, and ends with 8 if something is damaged. Beside a process that is
    running it leaves out what moves, and says so.
    """
    found = look_through(config)
    if as_json:
        click.echo(json.dumps(found.told()))
    else:
        for finding in found.all:
            click.echo(printable(str(finding)))
        checked = ", ".join(f"{many} {what}{'s' * (many != 1)}" for what, many in found.checked.items())
        click.echo(f"checked  {checked}: {f'{found.damaged} damaged' if found.damaged else 'all is well'}")
    if found.damaged:
        raise DamageError(
            f"{found.damaged} of what is kept here is damaged; the lines above say where, and the way out"
        )


def look_through(config: Config) -> Findings:
    """All that `floe check` looks at. Raises `ConfigError` where nobody has anything."""
    found = Findings()
    parts = _parts(config, found)
    _check_secret(config, found)
    check_logins(config, config.path(config.security.access), found)
    for part, name in parts:
        state = config.path(config.paths.state) / f"{part}-{name}"
        check_enrolled(config, state, found)
        check_logins(config, state / "access", found)
        check_of(part)(config, name, found)
        if part == "aggregator":
            check_of("simulation")(config, name, found)
    return found


def _parts(config: Config, findings: Findings) -> list[tuple[str, str]]:
    """The aggregators and devices that have something here. Raises `ConfigError` if nobody has."""
    state = config.path(config.paths.state)
    try:
        names = sorted(path.name for path in state.iterdir() if path.is_dir()) if state.exists() else []
    except OSError as error:
        raise ConfigError(f"{state}: cannot be looked into: {error.strerror}; see [paths] state") from None
    found = [(part, name.removeprefix(f"{part}-")) for part in ("aggregator", "device") for name in names
             if name.startswith(f"{part}-")]  # fmt: skip
    log = config.path(config.paths.log) / FILE
    if not any(part == "aggregator" for part, _ in found) and findings.has(log):
        found.insert(0, ("aggregator", config.rounds.lineage))
    if not found and not findings.damaged:
        where = config.file or Path.cwd()
        raise ConfigError(
            f"{state}: no aggregator and no device has anything here, and there is no {log}: run it where their "
            f"floe.toml is, or name that with --config (this was {where})"
        )
    return found


def _check_secret(config: Config, found: Findings) -> None:
    path = config.path(config.security.secret_key)
    sealed = [witness.parent for witness in config.path(config.paths.state).glob("*/sealed")]
    there = found.has(path)
    if there:
        with found.looking_at(path, "shared key"):
            read_secret(path)
    elif there is False and sealed:
        found.damage(path, f"missing, but {sealed[0]} has used it", "bring the key back")
