"""Hostile inputs as Hypothesis draws them: random bytes, and valid ones with a few edits, of bytes or of their JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Frame = Callable[[bytes], tuple[bytes, Callable[[bytes], bytes]]]
MAX_BYTES = 256 * 1024
TOKENS = [
    *(b"\0", b"\n", b"\r\n", b"\x7f", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x80\xae", b"#", b"+", b"/"),
    *(b"$SYS/", b"../", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"=", b"-", b"_"),
    *(b"0", b"-1", b"1e400", b"NaN", b"Infinity", b"9" * 400, b"\x80\x04N.", b"PK\x03\x04", b"\x93NUMPY", bytes(8)),
    *(b"\xff" * 8, b"[" * 2000, b'{"a":' * 2000, b'"floe":1,', b"'; DROP TABLE updates;--", b"<script>"),
]  # fmt: skip
NUMBERS = [0, -1, 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30]
VALUES = [
    *map(str, NUMBERS), "9" * 400, "9" * 5000, "1.0", "-0.0", "1e400", "-1e400", "1e-400", "NaN", "-Infinity",
    "null", "true", "false", "[]", "{}", '""', '"#"', '"+"', '"a/b"', '"../../x"', '"$SYS"', '"a\\u0000"', '"a\\n"',
    '"\\u202ea"', '"\\ud800"', '"\\ud83d\\ude00"', '"ANN"', f'"{"a" * 65}"', f'"{"a" * 600}"', '"=cmd|x!A1"',
    '"\'; DROP TABLE updates;--"', '"<script>"', '{"a":1,"a":2}', "[" * 3000 + "]" * 3000, "[[[[]]]]",
    f"[{','.join(['0'] * 2000)}]", f"[{','.join(['[0,1]'] * 600)}]", '{"__metadata__":{"a":"b"}}',
]  # fmt: skip


def whole(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The frame of an input that is JSON, if anything."""
    return data, lambda text: text


@dataclass(frozen=True)
class Edit:
    """One change: what is done at which place (as a share of the whole), with what."""

    kind: str
    place: float
    length: int
    token: bytes
    value: str


BYTE_EDITS = ("flip", "insert", "cut", "repeat", "overwrite", "splice", "end")
JSON_EDITS = ("value", "drop", "twice", "add", "swap")
edits = st.builds(
    Edit,
    kind=st.sampled_from(BYTE_EDITS + JSON_EDITS * 2),
    place=st.floats(0, 1, exclude_max=True),
    length=st.integers(1, 64),
    token=st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=8),
    value=st.sampled_from(VALUES) | st.from_regex(r"\A-?[0-9]{1,20}(\.[0-9]{1,4})?(e[0-9]{1,3})?\Z"),
)


def hostile(seeds: Sequence[bytes], frame: Frame) -> st.SearchStrategy[bytes]:
    """Raw bytes, and seeds with one to four edits; `frame` says where the JSON in a seed is."""
    edited = st.builds(
        lambda seed, other, changes: _edited(seed, other, changes, frame),
        st.sampled_from(seeds), st.sampled_from(seeds), st.lists(edits, min_size=1, max_size=4),
    )  # fmt: skip
    return st.one_of(edited, edited, edited, st.binary(max_size=200))


def _edited(seed: bytes, other: bytes, changes: list[Edit], frame: Frame) -> bytes:
    for change in changes:
        seed = _in_json(seed, change, frame) if change.kind in JSON_EDITS else _in_bytes(seed, other, change)
    return seed[:MAX_BYTES]


def _in_bytes(data: bytes, other: bytes, change: Edit) -> bytes:
    at, length = int(change.place * (len(data) + 1)), change.length
    match change.kind:
        case "flip" if at < len(data):
            return data[:at] + bytes([data[at] ^ 1 << length % 8]) + data[at + 1 :]
        case "cut":
            return data[:at] + data[at + length :]
        case "repeat":
            return data[: at + length] + data[at:]
        case "overwrite":
            return data[:at] + change.token + data[at + len(change.token) :]
        case "splice":
            return data[:at] + other[int(change.place * len(other)) :]
        case "end":
            return data[:at]
    return data[:at] + change.token + data[at:]


class _Members(list[tuple[str, Any]]):
    """An object as it is written: keys may come twice."""


@dataclass(frozen=True)
class _Text:
    """A value as it is written, be it JSON or not."""

    text: str


def _in_json(data: bytes, change: Edit, frame: Frame) -> bytes:
    """The same with one member of one object, or one element of one list, changed; or a value alone."""
    try:
        text, put_back = frame(data)
        whole = json.loads(text, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        return _in_bytes(data, data, change)
    places = list(_places([whole]))
    holder, index = places[int(change.place * len(places))]
    key, value = holder[index] if isinstance(holder, _Members) else ("", holder[index])
    new = _Text(change.value)
    if change.kind == "drop" and holder[0] is not whole:
        del holder[index]
    elif change.kind == "add" and isinstance(value, list):
        value.insert(change.length % (len(value) + 1), (change.value[:9], new) if isinstance(value, _Members) else new)
    elif change.kind == "twice":
        holder.append(holder[index])
    elif change.kind == "swap":
        holder.reverse()
    else:
        holder[index] = (key, new) if isinstance(holder, _Members) else new
    return put_back(_written(places[0][0][0]).encode("utf-8", "surrogatepass"))


def _places(holder: list[Any]) -> Any:
    """Every place in a tree of lists: the list and the index in it; first that of the whole."""
    for index, item in enumerate(holder):
        value = item[1] if isinstance(holder, _Members) else item
        yield holder, index
        if isinstance(value, list):
            yield from _places(value)


def _written(value: Any) -> str:
    if isinstance(value, _Text):
        return value.text
    if isinstance(value, _Members):
        return "{" + ",".join(f"{json.dumps(key)}:{_written(one)}" for key, one in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)
