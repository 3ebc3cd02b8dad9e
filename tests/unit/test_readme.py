"""What the README shows is true: its commands exist with these flags, its queries run, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from aggregator.log import Log
from floe.cli import COMMANDS, floe
from floe.config import ALIASES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def floe_commands() -> list[list[str]]:
    found = [words[1:] for words in commands() if words[0] in ("floe", "./start.sh")]
    return [words for words in found if words[0] not in ("test", "shell", "setup")]


def test_the_readme_begins_with_the_two_commands() -> None:
    assert TEXT.index("./start.sh demo") < TEXT.index("./start.sh test") < TEXT.index("## By hand")


@pytest.mark.parametrize("words", floe_commands(), ids=" ".join)
def test_a_command_of_the_readme_has_these_flags(words: list[str]) -> None:
    command: click.Command = floe
    context = click.Context(floe)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    command.make_context(command.name, list(words))  # fails for an unknown flag or a missing argument


def test_every_command_is_in_the_readme_but_those_of_data() -> None:
    shown = {words[0] for words in floe_commands()}
    assert set(COMMANDS) - shown == {"data"}


def test_scripts_of_the_readme_exist() -> None:
    scripts = [words[1] for words in commands() if words[0] == "python"]
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)


@pytest.mark.parametrize("query", blocks("sql"))
def test_a_query_of_the_readme_runs(tmp_path: Path, query: str) -> None:
    log = Log(tmp_path)
    assert log.db.execute(query).fetchall() == []
    log.close()


def test_there_are_three_queries() -> None:
    assert len(blocks("sql")) == 3


def test_the_configuration_of_the_readme_is_valid() -> None:
    for block in blocks("toml"):
        assert set(tomllib.loads(block)) <= set(ALIASES)


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)
