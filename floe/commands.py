"""`floe init` and `floe key`: the files that a federation begins with."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import click

from floe.cli import config_options
from floe.config import FILE
from floe.errors import ConfigError
from floe.files import write_atomically
from floe.identity import new_secret
from floe.operators import new_operator
from floe.settings import ALIASES, SECTIONS, Config, describe


@click.command()
@click.option("--print", "only_print", is_flag=True, help="print it instead of writing it")
@click.option("--force", is_flag=True, help="replace a floe.toml that is there")
def init(only_print: bool, force: bool) -> None:
    """Write ./floe.toml with every key, what it means, what is allowed, and its default."""
    if only_print:
        click.echo(commented(), nl=False)
        return
    path = Path(FILE)
    if os.path.lexists(path) and not force:  # a link that leads nowhere is somebody's too
        raise ConfigError(f"{path}: exists already; --force replaces it, --print shows a fresh one")
    write_atomically(path, commented().encode())
    click.echo(f"{path} written; flags and FLOE_... variables override it")


@click.group()
def key() -> None:
    """Keys: the shared one of a federation that does without enrolment, and an operator's."""


@key.command("new")
@click.argument("path", default="secret.key", type=click.Path(path_type=Path))
def key_new(path: Path) -> None:
    """Write a fresh key to PATH (default ./secret.key), mode 0600; never overwrites."""
    new_secret(path)
    click.echo(
        f"{path} written: copy it to every device and the aggregator, over a safe way; the broker never needs it"
    )


@key.command("operator")
@click.argument("name", default="operator")
@config_options()
def key_operator(config: Config, name: str) -> None:
    """Make an operator's key (operator.pem), and add NAME with its public key to operators.pub."""
    private, known = config.path(config.security.operator_key), config.path(config.security.operators)
    new_operator(name, private, known)
    click.echo(f"{private} written: it signs the commands of `floe round`; keep it to yourself")
    click.echo(f"{known} names whom an aggregator obeys: it belongs beside the aggregator's floe.toml too")


def commented() -> str:
    """floe.toml as text: every key commented out, with its meaning, what is allowed, and its default."""
    lines = ["# Floe. A flag overrides FLOE_<SECTION>_<KEY>, which overrides this file.", ""]
    for section, struct in SECTIONS.items():
        lines.append(f"[{section}]")
        for name in struct.__struct_fields__:
            meaning, allowed, default = describe(section, name)
            lines += textwrap.wrap(f"{meaning}. Allowed: {allowed}", 100, initial_indent="# ", subsequent_indent="#   ")
            lines.append(f"# {name} = {_toml(default)}")
        lines.append("")
    for section, meaning in ALIASES.items():
        lines += [f"[{section}]", f"# {meaning}", ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return "[]" if value == () else str(value)
