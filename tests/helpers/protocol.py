"""PROTOCOL.md as data: the tables under a heading, and a field of a struct in the document's words. Reads that file."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

DOCUMENT = Path(__file__).resolve().parents[2] / "floe" / "PROTOCOL.md"
PATTERNS = {
    r"\A[a-z0-9_-]{1,64}\Z": "name",
    r"\A[0-9a-f]{64}\Z": "hash",
    r"\A([0-9a-f]{64})?\Z": "hash, or empty",
    r"\A[0-9a-f]{32}\Z": "hex32",
    r"\A[0-9a-f]{16}\Z": "hex16",
    r"\A([A-Za-z0-9_-]{43})?\Z": "base64url of 43 characters, or empty",
    r"\A[A-Za-z0-9_-]{1,512}\Z": "base64url, at most 512 characters",
    r"\A[A-Za-z0-9_-]{0,512}\Z": "base64url, at most 512 characters, or empty",
    r"\A([a-z0-9_-]{1,64}|\*)\Z": "name, or `*`",
    r"\A([a-z0-9_-]{1,64})?\Z": "name, or empty",
    r"\A([0-9a-f]{32})?\Z": "hex32, or empty",
    r"\A[A-Za-z0-9_-]{43}\Z": "base64url of 43 characters",
    r"\A[A-Za-z0-9_-]{1,8192}\Z": "base64url, at most 8192 characters",
}
WORDS = {bool: "true or false", int: "integer", float: "number", str: "text"}


def tables_under(heading: str) -> list[list[list[str]]]:
    """The tables of a section as rows of cells, without their header; `heading` with its leading `#`s."""
    lines = iter(DOCUMENT.read_text(encoding="utf-8").splitlines())
    found: list[list[list[str]]] = [[]]
    if not any(line == heading for line in lines):
        raise KeyError(heading)
    for line in lines:
        if line.startswith("#"):
            break
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table[2:] for table in found if table]


def in_words(field: msgspec.structs.FieldInfo, hint: Any) -> tuple[str, str, str]:
    """Name, allowed and default of a field, as the document writes them."""
    return field.name, allowed(hint), default(field)


def default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT:
        return "-"
    return f"`{json.dumps(field.default)}`"


def allowed(hint: Any) -> str:
    """A type and its limits."""
    kind, metas = hint, []
    while get_origin(kind) is Annotated:
        metas += [extra for extra in get_args(kind)[1:] if isinstance(extra, Meta)]
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        words = [f"`{word}`" for word in get_args(kind) if word]
        empty = ["or empty"] if "" in get_args(kind) else []
        return "see section 10" if len(words) > 10 else ", ".join([*words, *empty])
    if get_origin(kind) in (types.UnionType, Union):
        return f"{allowed(get_args(kind)[0])}, or null"
    if get_origin(kind) is dict:
        return "; ".join([f"object of {allowed(get_args(kind)[1])}", *(f"at most {m.max_length}" for m in metas)])
    if get_origin(kind) is tuple:
        return _list(get_args(kind), metas)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind.__name__
    for meta in metas:
        if meta.pattern is not None:
            return PATTERNS[meta.pattern]
    return ", ".join([WORDS[kind], *_limits(metas)])


def _list(inner: tuple[Any, ...], metas: list[Meta]) -> str:
    if inner[-1] is not Ellipsis:
        return f"pair of {allowed(inner[0])}"
    sizes = [f"at least {m.min_length}" for m in metas if m.min_length]
    sizes += [f"at most {m.max_length}" for m in metas if m.max_length]
    return "; ".join([f"list of {allowed(inner[0])}", *sizes])


def _limits(metas: list[Meta]) -> list[str]:
    found: list[str] = []
    for meta in metas:
        if meta.ge is not None and meta.le is not None:
            found.append(f"{_number(meta.ge)} to {_number(meta.le)}")
            continue
        for word, bound in ((">=", meta.ge), (">", meta.gt), ("<=", meta.le), ("<", meta.lt)):
            found += [f"{word} {_number(bound)}"] if bound is not None else []
        found += [f"at most {meta.max_length} characters"] if meta.max_length else []
    return found


def _number(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
