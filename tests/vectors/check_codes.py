"""Join codes, from PROTOCOL.md, section 15.10, alone: imports nothing of Floe."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from typing import Any

Json = dict[str, Any]
NAME = "[a-z0-9_-]{1,64}"
LOGINS = ("shared", "passwords", "certificates")
BASE41 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ+-./:"


def read_code(text: str) -> Json:
    """Section 15.10."""
    text = "".join(text.split()).upper()
    assert text.startswith("FLOE1:"), "another prefix"
    raw = b"".join(group_of(text[at : at + 3]) for at in range(6, len(text), 3))
    content, rest = raw[:-4], raw[93:-4]
    assert hashlib.sha256(b"FLOE1:" + content).digest()[:4] == raw[-4:], "checksum"
    root, sealing, token, *numbers, flags = struct.unpack_from(">32s32s16sIIHHB", content)
    texts = []
    for pattern in (NAME, NAME, f"({NAME})?", "[A-Za-z0-9._:-]{1,253}"):
        length, rest = rest[0], rest[1:]
        assert len(rest) >= length, "cut"
        texts.append(rest[:length].decode("ascii"))
        rest = rest[length:]
        assert re.fullmatch(pattern, texts[-1]), texts[-1]
    assert (rest, flags >> 1 < len(LOGINS)) == (b"", True), "more than a code has"
    assert all(numbers[2:]), "port 0"
    keys = {"root": encode64(root), "sealing": encode64(sealing), "token": token.hex(), "tls": bool(flags & 1)}
    keys["login"] = LOGINS[flags >> 1]
    names = zip(("federation", "lineage", "device", "host"), texts, strict=True)
    return keys | dict(names) | dict(zip(("expires", "version", "port", "lobby_port"), numbers, strict=True))


def group_of(digits: str) -> bytes:
    """Three digits are two bytes, two are one, the lowest digit first."""
    number = sum(BASE41.index(digit) * 41**place for place, digit in enumerate(digits))
    assert len(digits) > 1, "a digit alone"
    return number.to_bytes(len(digits) - 1)


def encode64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def codes(case: Json) -> None:
    assert read_code(case["text"]) == case["code"]
    assert read_code(" " + case["text"].lower().replace("/", "/\n")) == case["code"]
