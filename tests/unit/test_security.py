"""SECURITY.md names every test of an attack, and no test that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers.undefended import DEFENCES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
FILES = sorted((ROOT / "tests" / "integration").glob("test_attack*.py"))


def attacks() -> dict[str, ast.FunctionDef]:
    found: dict[str, ast.FunctionDef] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = node
    return found


def test_every_attack_is_named_and_every_name_is_a_test() -> None:
    assert sorted(re.findall(r"`(test_\w+)`", TEXT)) == sorted(attacks())


@pytest.mark.parametrize("name", sorted(attacks()))
def test_an_attack_is_tried_with_and_without_its_defence(name: str) -> None:
    decorators = [ast.unparse(decorator) for decorator in attacks()[name].decorator_list]
    assert "both" in decorators


def test_every_defence_that_can_be_switched_off_is_switched_off_by_an_attack() -> None:
    texts = "\n".join(path.read_text() for path in FILES)
    assert [name for name in DEFENCES if f'"{name}"' not in texts] == []


def test_the_files_that_it_names_are_there() -> None:
    for named in re.findall(r"`((?:tests|floe)/[\w./]+)`", TEXT):
        assert (ROOT / named).exists(), named
