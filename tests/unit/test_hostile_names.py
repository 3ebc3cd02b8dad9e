"""Names that are none, in every place where a name is taken: topics, messages, the command line, floe.toml, lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from click.testing import CliRunner
from helpers.wire import ANN, EVE, KINDS, golden, least

from floe import cli, topics
from floe import messages as m
from floe.config import load
from floe.errors import ConfigError, FloeError, KeyFileError, Refused
from floe.messages import Name
from floe.operators import new_operator, read_operators
from floe.signing import DOMAIN, to_text, verify

HOSTILE = [
    "", "#", "+", "/", "a/b", "a#", "+a", "$SYS", "$share", "a\0", "\0", "a\n", "\na", "a\r", "a\t", " a", "a b",
    "\u202ea", "a\u200f", "\u2066a", "\ufeffa", "Ann", "ANN", "a" * 65, "\u00e4", "a\u0301", "\u0430nn", "\uff41", ".",
    "..", "../a", "a.b", "~", "%u", "%c", "{x}", "a:b", "a*", "*", "a\\b", "'; DROP TABLE updates;--", "a\x1b[2J",
]  # fmt: skip
EXAMPLES = {tag: {**least(kind), "key": ANN.key} for tag, kind in KINDS.items()}
EXAMPLES |= {case["type"]: json.loads(case["payload"]) for case in golden("valid/messages")}


def places_of_names(kind: Any, value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a message, as JSON, a name stands: by the types of its fields."""
    for field, hint in get_type_hints(kind, include_extras=True).items():
        if field in getattr(kind, "__struct_fields__", ()):
            yield from _within(hint, value.get(field), (*path, field))


def _within(hint: Any, value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if hint == Name:
        yield path
    elif get_origin(hint) in (UnionType, Union) and value is not None:
        yield from _within(get_args(hint)[0], value, path)
    elif get_origin(hint) is tuple and get_args(hint)[0] == Name:
        yield (*path, 0)
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield from places_of_names(hint, value, path)


def put(message: Any, path: tuple[Any, ...], value: str) -> Any:
    """The same with another value in one place."""
    changed = json.loads(json.dumps(message))
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    if path[-1] == 0:
        inner[:] = [value]
    else:
        inner[path[-1]] = value
    return changed


def signed(message: Any) -> bytes:
    text = json.dumps({**message, "key": ANN.key}).encode()
    return text[:-1] + f',"sig":"{to_text(ANN.private.sign(DOMAIN + text))}"}}'.encode()


PLACES = [
    pytest.param(tag, path, id=f"{tag}.{'.'.join(map(str, path))}")
    for tag, kind in KINDS.items()
    for path in places_of_names(kind, EXAMPLES[tag])
]


def test_every_message_has_places_for_names() -> None:
    found = {str(place.id) for place in PLACES}
    assert {f"{tag}.{field}" for tag in KINDS for field in ("federation", "sender")} <= found
    assert {"round.phase.lineage", "round.devices.0", "manifest.core.sender", "answer.to", "reply.to"} <= found


@pytest.mark.parametrize(("tag", "path"), PLACES)
def test_no_message_has_a_name_that_is_none(tag: str, path: tuple[Any, ...]) -> None:
    kind, example = KINDS[tag], {k: v for k, v in EXAMPLES[tag].items() if k != "sig"}
    assert isinstance(verify(signed(put(example, path, "a-name_1")), kind), kind)
    for name in HOSTILE:
        with pytest.raises(Refused) as refusal:
            verify(signed(put(example, path, name)), kind)
        assert refusal.value.reason == "malformed"


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "*"])
def test_no_envelope_is_for_a_name_that_is_none(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"to": name, "wrap": "none", "key": ""}, m.Envelope)


@pytest.mark.parametrize("kind", topics.ALL, ids=lambda kind: kind.__name__)
def test_no_topic_has_a_level_that_is_none(kind: type[topics.Topic]) -> None:
    levels = {f.name: 1 if f.name in ("round", "index") else "a" for f in fields(kind)}
    for level in (name for name, value in levels.items() if value == "a"):
        for name in HOSTILE:
            with pytest.raises(ValueError, match="not a topic of Floe"):
                kind(**{**levels, level: name})
            with pytest.raises(Refused, match="malformed"):
                topics.parse(kind.PATTERN.format(**{**levels, level: name}))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_file_variable_or_flag_gives_a_name_that_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for section, key in (("federation", "name"), ("rounds", "lineage"), ("plan", "model")):
        (tmp_path / "floe.toml").write_text(f"[{section}]\n{key} = {json.dumps(name)}\n")
        with pytest.raises(ConfigError, match="allowed is text"):
            load(environ={})
        (tmp_path / "floe.toml").unlink()
        with pytest.raises(ConfigError, match="allowed is text"):
            load(environ={f"FLOE_{section}_{key}".upper(): name})
        with pytest.raises(ConfigError, match="allowed is text"):
            load({f"{section}.{key}": ("--flag", name)}, {})
    (tmp_path / "floe.toml").write_text(f"[rounds]\nmembers = [{json.dumps(name)}]\n")
    with pytest.raises(ConfigError, match="allowed is list of text"):
        load(environ={})


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "command",
    [
        ("client", "--id"),
        ("client", "--id=a", "--lineage"),
        ("aggregator", "--lineage"),
        ("tail", "--federation"),
        ("models", "list", "--lineage"),
        ("round", "status", "--lineage"),
        ("broker", "--federation"),
        ("key", "operator", "--"),
    ],
    ids=lambda command: " ".join(command),
)
def test_no_command_takes_a_name_that_is_none(
    command: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.floe, [*command, name])
    assert isinstance(result.exception, (ConfigError, KeyFileError)), result.output
    assert str(result.exception).isprintable(), "a terminal is not steered by the complaint"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_no_device_of_floe_toml_has_a_name_that_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "floe.toml").write_text(f"[device]\nid = {json.dumps(name)}\n")
    result = CliRunner().invoke(cli.floe, ["client"])
    assert isinstance(result.exception, ConfigError)
    assert "a device needs a name of" in str(result.exception)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_list_of_operators_has_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    known = tmp_path / "operators.pub"
    with pytest.raises(FloeError, match="an operator needs a name"):
        new_operator(name, tmp_path / "bob.pem", known)
    known.write_text(f"{name} {ANN.key}\neve {EVE.key}\n")
    assert {listed for listed, _ in read_operators(known).known} <= {"eve", "a", "ann"} - {name}
