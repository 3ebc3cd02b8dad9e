"""The parsers of what comes over the wire, as functions of bytes: text, JSON, messages, transfers."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
from helpers.wire import ANN, KINDS, SEALED, SECRET, core, golden, least, right_or_refused

from aggregator.intake import check_report
from floe import joincode, seal, signing, topics, transfer
from floe import messages as m
from floe.errors import ConfigError, Refused
from floe.keyring import Keyring, open_meta
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema
from floe.session import Received
from floe.tail import _text
from floe.telemetry import MAX_LINE, MAX_LINES, Telemetry
from floe.watch import Watch

KEY = bytes(range(64, 96))
T = TypeVar("T")
SCHEMA = b'{"shape":[2],"classes":2,"features":["a","b"]}'


def topic(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert str(topics.parse(text)) == text


def parse_json(data: bytes) -> None:
    found = m.parse_json(data)
    assert m.parse_json(json.dumps(found).encode(), 16 * len(data) + 99) == found


def base64url(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert signing.to_text(signing.from_text(text)) == text


def signed(data: bytes) -> bytes:
    """The same with a signature that verifies, if it is a message of ANN's."""
    return data[:-1] + f',"sig":"{signing.to_text(ANN.private.sign(signing.DOMAIN + data))}"}}'.encode()


def message(kind: type[m.Message]) -> Callable[[bytes], None]:
    """A message as it comes, and one whose signature is right: only its content can refuse it."""

    def run(data: bytes) -> None:
        for payload in (data, signed(data)):
            with right_or_refused("malformed", "signature", "oversized", "unknown-version"):
                found = signing.verify(payload, kind)
                assert found.key != ANN.key or signing.verify(ANN.sign(found), kind) == found

    return run


def messages_of(word: str) -> Callable[[], list[bytes]]:
    """The golden ones, with ANN's key and without a signature, and as they are."""

    def seeds() -> list[bytes]:
        made = {**least(KINDS[word]), "key": ANN.key}
        valid = [case["payload"] for case in golden("valid/messages") if case["type"] == word]
        bare = [json.dumps({**json.loads(text.rpartition(',"sig":')[0] + "}"), "key": ANN.key}) for text in valid]
        return [text.encode() for text in [json.dumps(made), *bare, *valid]]

    return seeds


def heard(data: bytes) -> None:
    """A topic, a line feed, a payload: what `floe tail` makes of it is one line that cannot steer a terminal."""
    level, _, payload = data.partition(b"\n")
    watch = Watch("floe")
    name = level.decode("utf-8", "surrogateescape")
    for line in [*watch.message(Received(name, payload, 1, 1, False), 0.0), *watch.tick(9.0)]:
        assert _text(line).isprintable()


def heard_seeds() -> list[bytes]:
    return [f"{one['topic']}\n{one.get('text', 'a chunk')}".encode() for one in golden("valid/flow")]


def schema(data: bytes) -> None:
    found = Schema.from_json(data.decode("utf-8", "replace"))
    assert Schema.from_json(found.to_json()) == found
    found.difference(Schema((3,), 2, ("a", "b", "c")))


def join_code(data: bytes) -> None:
    """As a person gives it, and as whoever makes up one whose checksum fits."""
    made_up = joincode.PREFIX + joincode._encode(data + joincode._checksum(data))
    for text in (data.decode("utf-8", "replace"), made_up):
        with suppress(ConfigError):
            code = joincode.read_code(text)
            assert joincode.read_code(joincode.write_code(code)) == code


def join_code_seeds() -> list[bytes]:
    key = signing.to_text(bytes(32))
    texts = [
        joincode.write_code(joincode.JoinCode("floe", "main", device, key, key, "0" * 32, 1, 1, "10.0.0.1", 1, 2, tls))
        for device, tls in (("", False), ("pump-1", True))
    ]
    contents = [joincode._decode(text.removeprefix(joincode.PREFIX))[: -joincode._CHECKSUM_BYTES] for text in texts]
    return [*(text.encode() for text in texts), *contents]


def cores(data: bytes) -> None:
    """A core as it stands in a manifest: with what it describes, everything that a receiver counts agrees."""
    fields = m.parse_json(data)
    try:
        found = msgspec.convert(fields, m.Core)
    except msgspec.ValidationError:
        return
    transfer.check_core(found, 10**9)
    lengths = [transfer.chunk_length(found, index) for index in range(len(found.chunks))]
    assert sum(lengths) == found.size
    assert min(lengths, default=1) > 0
    assert len(transfer.name_of(found)) == 32
    opened = Keyring(found.suite, None if found.suite == "plaintext" else SECRET)
    envelope = opened.envelope(found, KEY, "main")
    open_meta(opened.open(msgspec.structs.replace(found, commitment=_commitment(found)), envelope), found, Report)


def _commitment(found: m.Core) -> str:
    return seal.sealer(found, KEY).commitment


def ranges(data: bytes) -> None:
    try:
        asked = msgspec.convert(m.parse_json(data), dict[str, tuple[tuple[m.Count, m.Count], ...]])
    except msgspec.ValidationError:
        return
    for pairs in asked.values():
        found = list(transfer.from_ranges(pairs, 1024))
        assert found == sorted(set(found))
        assert not found or found[-1] < 1024


def chunk(data: bytes) -> None:
    """As chunk, as report and as wrapped key under every suite; what nobody sealed opens under none."""
    text = data.decode("utf-8", "surrogateescape")
    opened = []
    for suite in SEALED:
        mine = core(suite)
        with right_or_refused("unsealing"):
            opened.append(seal.sealer(mine, KEY).open(0, data))
        with right_or_refused("unsealing", "malformed"):
            opened.append(seal.sealer(mine, KEY).open_meta(text))
        with right_or_refused("unsealing", "malformed"):
            opened.append(seal.unwrap_shared(mine, m.Envelope(to="main", wrap="shared", key=text), SECRET))
    assert opened == []


def chunk_seeds() -> list[bytes]:
    """What was sealed for another transfer."""
    other = core(salt="7" * 32)
    sealers = [seal.sealer(core(suite, salt=other.salt), KEY) for suite in SEALED]
    wrapped = seal.wrap_shared(other, KEY, SECRET, "main").key
    return [
        wrapped.encode(), *(one.seal(0, b"abc") for one in sealers), *(one.seal_meta("{}").encode() for one in sealers),
    ]  # fmt: skip


def _sealed_as(data: bytes, kind: type[T]) -> T:
    """What a device has sealed in `Core.meta`: any bytes at all."""
    opener = seal.sealer(core(), KEY)
    meta = signing.to_text(opener._seal(opener.meta_key, seal.META_INDEX, data))
    return open_meta(opener, core(meta=meta), kind)


def telemetry(data: bytes) -> None:
    found = _sealed_as(data, Telemetry)
    assert msgspec.convert(msgspec.to_builtins(found), Telemetry) == found
    assert len(found.lines) <= MAX_LINES
    assert all(len(line.text) <= MAX_LINE for line in found.lines)


def report(data: bytes) -> None:
    found = _sealed_as(data, Report)
    assert msgspec.convert(msgspec.to_builtins(found), Report) == found
    for task in ("train", "evaluate", "sums"):
        with suppress(Refused):
            check_report(found, core(task=task), Plan())
