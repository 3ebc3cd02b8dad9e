"""The tables of PROTOCOL.md, section 3, 8 and 9, as a checker of messages: imports nothing of Floe.

What a field may be is read from the document's own words, so that document, code and golden files must agree.
"""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

Json = dict[str, Any]
DOCUMENT = Path(__file__).resolve().parents[2] / "floe" / "PROTOCOL.md"
PATTERNS = {"name": "[a-z0-9_-]{1,64}", "hash": "[0-9a-f]{64}", "hex32": "[0-9a-f]{32}", "hex16": "[0-9a-f]{16}"}
NUMBER = r"-?[0-9.]+(?:e[+-]?[0-9]+)?"


def parse(text: bytes, limit: int = 131_072) -> Json:
    """Section 3: one JSON object, as strict as it says. Raises `ValueError`."""
    assert len(text) <= limit, "oversized"
    assert not text.startswith(b"\xef\xbb\xbf"), "byte order mark"
    found = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    json.dumps(found, ensure_ascii=False).encode()  # fails for half a surrogate pair
    assert isinstance(found, dict), "not an object"
    return found


def decode64(text: str) -> bytes:
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text, f"{text} is not canonical"
    return raw


def check_message(message: Json, kind: str) -> None:
    """That a message without its signature is of this type, and has the fields of its table and no others."""
    assert (message.get("floe"), type(message["floe"])) == (1, int), "version"
    assert message.get("type") == kind, "type"
    heading = next(found for found in TABLES if found.endswith(f"type `{kind}`"))
    rest = {name: value for name, value in message.items() if name != "type"}
    check_fields(rest, TABLES["Message"] | TABLES[heading])


def check_struct(value: object, name: str) -> None:
    """That a value is an object with the fields of a table."""
    assert isinstance(value, dict), f"{name}: not an object"
    check_fields(value, TABLES[name])


def check_fields(value: Json, fields: dict[str, tuple[str, str]]) -> None:
    assert value.keys() <= fields.keys(), f"unknown {value.keys() - fields.keys()}"
    for name, (allowed, default) in fields.items():
        assert name in value or default != "-", f"no {name}"
        if name in value:
            assert is_allowed(value[name], allowed), f"{name} is not: {allowed}"


def is_allowed(value: object, words: str) -> bool:
    """Whether a value is what the words of a table say."""
    if words.endswith(", or null"):
        return value is None or is_allowed(value, words.removesuffix(", or null"))
    if words.startswith("list of "):
        inner, *sizes = words.removeprefix("list of ").split("; ")
        least = [int(size.removeprefix("at least ")) for size in sizes if "at least" in size]
        most = [int(size.removeprefix("at most ")) for size in sizes if "at most" in size]
        fits = isinstance(value, list) and all(len(value) >= n for n in least) and all(len(value) <= n for n in most)
        return fits and all(is_allowed(item, inner) for item in value)  # type: ignore[attr-defined]
    if words.startswith("object of "):
        inner, most_ = words.removeprefix("object of ").split("; at most ")
        fits = isinstance(value, dict) and len(value) <= int(most_)
        return fits and all(is_allowed(item, inner) for item in value.values())  # type: ignore[attr-defined]
    if words.startswith("pair of "):
        inner = words.removeprefix("pair of ")
        return isinstance(value, list) and len(value) == 2 and all(is_allowed(item, inner) for item in value)
    if words in TABLES:
        check_struct(value, words)
        return True
    if words.startswith(("integer", "number")):
        return _is_number(value, words)
    if words == "true or false":
        return isinstance(value, bool)
    return isinstance(value, str) and _is_text(value, words)


def _is_number(value: object, words: str) -> bool:
    kind, *limits = words.split(", ")
    if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
        return False
    if isinstance(value, int) and kind == "number" and abs(value) > 2**53:
        value = float(value)
    assert isinstance(value, int | float)
    for limit in limits:
        if found := re.fullmatch(f"({NUMBER}) to ({NUMBER})", limit):
            if not float(found[1]) <= value <= float(found[2]):
                return False
            continue
        sign, bound = limit.split()
        holds = {">=": value >= float(bound), ">": value > float(bound), "<=": value <= float(bound)}
        if not (holds | {"<": value < float(bound)})[sign]:
            return False
    return math.isfinite(value)


def _is_text(value: str, words: str) -> bool:
    if words == "see section 10":
        return value in REASONS
    if words.startswith("`") or words == "or empty":
        return value in re.findall("`([^`]+)`", words) or ("or empty" in words and value == "")
    if value == "" and words.endswith(", or empty"):
        return True
    if words == "name, or `*`" and value == "*":
        return True
    kind = words.split(",")[0]
    if kind in PATTERNS:
        return re.fullmatch(PATTERNS[kind], value) is not None
    length = re.search(r"(of|at most) ([0-9]+) characters", words)
    if length and (len(value) > int(length[2]) or (length[1] == "of" and len(value) != int(length[2]))):
        return False
    if kind.startswith("base64url"):
        return re.fullmatch("[A-Za-z0-9_-]+", value) is not None
    assert kind == "text", f"the words {words!r} are not understood"
    return True


def _once(pairs: list[tuple[str, Any]]) -> Json:
    assert len(dict(pairs)) == len(pairs), "a member twice"
    return dict(pairs)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _tables() -> dict[str, dict[str, tuple[str, str]]]:
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for section in re.split(r"^#{2,3} ", DOCUMENT.read_text(encoding="utf-8"), flags=re.M):
        heading, _, text = section.partition("\n")
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row[:1] == "|"]
        if rows and rows[0][:3] == ["Field", "Allowed", "Default"]:
            found[heading] = {row[0]: (row[1], "-" if row[0] == "floe" else row[2]) for row in rows[2:]}
    return found


TABLES = _tables()
_REASON = re.compile(r"^\| `([a-z-]+)` \| (?:not answered|late|rejected|superseded)", re.M)
REASONS = {"", *_REASON.findall(DOCUMENT.read_text(encoding="utf-8"))}
