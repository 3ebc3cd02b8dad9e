"""What the README shows is true: its commands exist with these flags, its queries run, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aggregator.log import Log, Outcome
from floe.cli import COMMANDS, floe
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.settings import ALIASES, SECTIONS

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


def test_every_command_is_in_the_readme() -> None:
    context = click.Context(floe)
    names = set()
    for name in COMMANDS:
        command = floe.get_command(context, name)
        names |= {(name, sub) for sub in command.commands} if isinstance(command, click.Group) else {(name,)}
    shown = floe_commands()
    assert {name for name in names if not any(tuple(words[: len(name)]) == name for words in shown)} == set()


def test_scripts_of_the_readme_exist() -> None:
    scripts = [words[1] for words in commands() if words[0] == "python"]
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """What a federation of two devices leaves: a model is trained, and measured; of `b` the training was refused."""
    log, model = Log(tmp_path), {"lineage": "main", "epoch": 1, "file": "", "bytes": 8, "signature": ""}
    train, evaluate = (Phase("main", 1, 1, task) for task in ("train", "evaluate"))
    metrics = Metrics(loss=0.5, accuracy=0.75, roc_auc=0.875)
    for device in ("a", "b"):
        log.pin(device, "key")
    log.update(Outcome("1", "a", train, "accepted", "", ""), Report(samples=7, test_samples=2, after=metrics,
               threshold=0.25), bytes_=10, sha256="f" * 64, suite="plaintext")  # fmt: skip
    log.update(Outcome("2", "b", train, "rejected", "device", "too few rows"), None, bytes_=1, sha256=None, suite="")
    log.add_model({**model, "round": 1, "sha256": "f" * 64, "devices": 1, "samples": 7})
    measured = Report(test_samples=2, before=metrics)
    log.update(Outcome("3", "a", evaluate, "accepted", "", ""), measured, bytes_=2, sha256=None, suite="plaintext")
    log.open_round(evaluate, "f" * 64, Plan(), "f" * 16, ["a", "b"])
    log.close_round(evaluate, up=0, down=0, model=None)
    yield log
    log.close()


def test_the_queries_answer_their_questions(log: Log) -> None:
    log.refused("b", "device")
    log.refused("nobody", "signature")
    log.flush(1.0)
    models, updates, devices, refusals = (log.db.execute(query).fetchall() for query in blocks("sql"))
    assert models == [(1, 1, 7, 0.5, 0.75, 0.875, "f" * 12)]
    assert updates == [
        ("a", "evaluate", "accepted", "", 1, 2, ""),
        ("a", "train", "accepted", "", 1, 10, ""),
        ("b", "train", "rejected", "device", 1, 1, "too few rows"),
    ]
    assert sorted(row[:3] for row in refusals) == [("", "signature", 1), ("b", "device", 1)]
    seen = {name: (state, *rest) for name, state, _, *rest in devices}
    assert seen == {"a": ("unknown", 1, 7, 0.75, 0.25), "b": ("unknown", None, None, None, None)}


def test_the_configuration_of_the_readme_is_valid() -> None:
    for block in blocks("toml"):
        for section, keys in tomllib.loads(block).items():
            assert section in ALIASES or set(keys) <= set(SECTIONS[section].__struct_fields__)


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)
