"""The join code: what is written is read again, and what was changed on the way is told as such."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest
from helpers.wire import ANN, names
from hypothesis import given
from hypothesis import strategies as st

from floe import joincode
from floe.errors import ConfigError
from floe.joincode import DIGITS, PREFIX, JoinCode, _decode, _encode, read_code, write_code
from floe.signing import to_text

CODE = JoinCode(
    federation="floe", lineage="main", device="ann", root=ANN.key, sealing=to_text(bytes(range(32))), token="5a" * 16,
    expires=1_800_000_000, version=7, host="broker.example", port=8883, lobby_port=8884, tls=True,
)  # fmt: skip
keys = st.binary(min_size=32, max_size=32).map(to_text)
ports = st.integers(1, 65535)
codes = st.builds(
    JoinCode,
    federation=names,
    lineage=names,
    device=names | st.just(""),
    root=keys,
    sealing=keys,
    token=st.binary(min_size=16, max_size=16).map(bytes.hex),
    expires=st.integers(0, 2**32 - 1),
    version=st.integers(0, 2**32 - 1),
    host=st.from_regex(r"\A[A-Za-z0-9._:-]{1,253}\Z"),
    port=ports,
    lobby_port=ports,
    tls=st.booleans(),
    login=st.sampled_from(["shared", "passwords", "certificates"]),
)


@given(codes)
def test_what_is_written_is_read_again(code: JoinCode) -> None:
    text = write_code(code)
    assert read_code(text) == code
    assert re.fullmatch(r"FLOE1:[0-9A-Z+./:-]+", text), "nothing that a shell or a message changes"


@given(codes, st.data())
def test_any_character_that_is_changed_lost_or_doubled_is_told(code: JoinCode, data: st.DataObject) -> None:
    text = write_code(code)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(DIGITS).filter(lambda digit: digit != text[place]))
    for changed in (other, "", text[place] * 2):
        with pytest.raises(ConfigError, match="join code"):
            read_code(text[:place] + changed + text[place + 1 :])


def test_every_character_changed_to_every_other_is_told() -> None:
    text = write_code(CODE)
    for place in range(len(PREFIX), len(text)):
        for digit in DIGITS.replace(text[place], ""):
            with pytest.raises(ConfigError, match="character is wrong"):
                read_code(text[:place] + digit + text[place + 1 :])


@given(st.integers(1, 80))
def test_blanks_line_breaks_and_small_letters_do_not_matter(width: int) -> None:
    text = write_code(CODE)
    lines = "\r\n  ".join(text[start : start + width] for start in range(0, len(text), width))
    assert read_code(f" \t{lines.lower()}\n") == CODE


@given(st.text() | st.text(DIGITS).map(lambda text: PREFIX + text))
def test_what_is_no_code_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError, match="join code"):
        read_code(text)


@given(st.binary(max_size=300))
def test_content_with_a_right_checksum_that_is_no_code_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"not made as a join code is|update it|no name|no address|is none"):
        read_code(sealed(content))


def sealed(content: bytes) -> str:
    return PREFIX + _encode(content + hashlib.sha256(PREFIX.encode() + content).digest()[:4])


def content_of(code: JoinCode) -> bytes:
    return _decode(write_code(code).removeprefix(PREFIX))[:-4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content + b"\0", "not made as"),
        (lambda content: content[:-1], "not made as"),
        (lambda content: content[:80], "not made as"),
        (lambda content: content[:92] + b"\x08" + content[93:], "does not know; update it"),
        (lambda content: content[:92] + b"\x07" + content[93:], "does not know; update it"),
        (lambda content: content.replace(b"\x04main", b"\x04Main"), "lineage 'Main' is no name"),
        (lambda content: content.replace(b"\x04main", b"\x00"), "lineage '' is no name"),
        (lambda content: content.replace(b"\x04floe", b"\x04fl\ne"), r"federation 'fl\\ne' is no name"),
        (lambda content: content.replace(b"\x04floe", b"\x04fl\xc3\xbc"), "not made as"),
        (lambda content: content.replace(b"\x03ann", b"\x03a/b"), "device 'a/b' is no name"),
        (lambda content: content.replace(b"broker.example", b"broker example"), "broker 'broker example' is no addr"),
        (lambda content: content[:88] + b"\0\0" + content[90:], "port 0 of the broker"),
    ],
    ids=range(12),
)
def test_a_code_that_was_made_wrong_says_in_what(change: Any, message: str) -> None:
    content = content_of(CODE)
    assert change(content) != content
    with pytest.raises(ConfigError, match=message):
        read_code(sealed(change(content)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"federation": ""}, "federation '' is no name"),
        ({"device": "a" * 65}, "device 'a+' is no name"),
        ({"host": "a b"}, "no address"),
        ({"host": ""}, "no address"),
        ({"host": "a" * 254}, "no address"),
        ({"port": 0}, "port 0"),
        ({"lobby_port": 65536}, "port 65536"),
        ({"root": ANN.key[1:]}, "key of the root"),
        ({"sealing": ""}, "key of the aggregator"),
        ({"token": "5A" * 16}, "token"),
        ({"expires": 2**32}, "valid until 4294967296"),
        ({"expires": -1}, "valid until -1"),
    ],
)
def test_what_could_not_be_read_is_not_written(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_code(replace(CODE, **change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no join code; `floe invite` prints one, and it begins with FLOE1:"),
        ("https://example.org", "no join code"),
        ("FLOE2:ABC", "made by another version of Floe"),
        (PREFIX, "character is wrong"),
        (PREFIX + "A", "character is wrong"),
        (PREFIX + ":::", "character is wrong"),
        (PREFIX + "AB$", r"'\$' is in no join code"),
        (PREFIX + "A" * 2001, "2001 characters, no code has more than 2000"),
    ],
)
def test_the_message_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_code(text)


def test_no_message_shows_the_code() -> None:
    text = write_code(CODE)
    for changed in (text[:-1], text.replace(PREFIX, ""), text + "$", text + "A" * 2000):
        with pytest.raises(ConfigError) as told:
            read_code(changed)
        assert text[20:40] not in str(told.value)
        assert CODE.token not in str(told.value)


@given(st.binary(max_size=300))
def test_bytes_to_digits_and_back(raw: bytes) -> None:
    text = _encode(raw)
    assert _decode(text) == raw
    assert len(text) == len(raw) // 2 * 3 + len(raw) % 2 * 2


@pytest.mark.parametrize(
    ("raw", "text"), [(b"", ""), (b"\0", "00"), (b"\xff", "96"), (b"\0\0", "000"), (b"\xff\xff", "H:."), (b"AB", "J.9")]
)
def test_digits_are_the_lowest_first(raw: bytes, text: str) -> None:
    assert _encode(raw) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"AB", "BB8"), (b"Hello!!", "%69 VD92EX0"), (b"base-45", "UJCLQE7W581"), (b"ietf!", "QED8WEX0")],
)
def test_with_the_digits_of_rfc_9285_it_is_base45(raw: bytes, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joincode, "DIGITS", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")
    assert _encode(raw) == text
    assert _decode(text) == raw


def test_a_usual_code_fits_where_facts_say() -> None:
    assert len(write_code(replace(CODE, device="", host="192.168.100.100"))) <= 195, "version 6-L, alphanumeric"
