"""`TARGETS`: every parser of bytes from elsewhere, as a function of bytes. Add a line there for a new one.

A target returns or raises what it is allowed to (`Refused`, unless said otherwise). What it returns is held to
something: a parser that takes an input must have understood it.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from fuzz.inputs import Frame
from helpers.wire import ANN, KINDS, SEALED, SECRET, core, golden, right_or_refused

from aggregator.intake import Expectation, check_report, check_weights
from edge_client.data.arrays import npz_names, read_npy, read_npz, to_x, to_y
from floe import messages as m
from floe import seal, signing, topics, transfer, weights
from floe.errors import DataError, Refused
from floe.keyring import Keyring, open_meta
from floe.plan import Plan
from floe.report import Report
from floe.schema import Schema
from floe.session import Received
from floe.tail import _text
from floe.watch import Watch

CORPUS = Path(__file__).parent / "corpus"
KEY = bytes(range(64, 96))
SCHEMA = b'{"shape":[2],"classes":2,"features":["a","b"]}'


def whole(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The frame of an input that is JSON, if anything."""
    return data, lambda text: text


@dataclass(frozen=True)
class Target:
    """A parser, valid inputs to begin with, what it may raise, and where the JSON in an input is."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[Exception], ...] = (Refused,)
    frame: Frame = whole

    def pool(self, name: str) -> list[bytes]:
        """The seeds, and what is kept of earlier runs."""
        return [*self.seeds(), *(path.read_bytes() for path in kept(name))]


def kept(name: str) -> list[Path]:
    """The corpus of a target."""
    return sorted((CORPUS / name).glob("*"))


# --- text and JSON -------------------------------------------------------------------------------------------------


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
        valid = [case["payload"] for case in golden("valid/messages") if case["type"] == word]
        bare = [json.dumps({**json.loads(text[:-96] + "}"), "key": ANN.key}) for text in valid]
        return [text.encode() for text in [*bare, *valid]]

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


# --- transfers -----------------------------------------------------------------------------------------------------


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


def report(data: bytes) -> None:
    """A report that its device has sealed: any bytes at all."""
    mine = core()
    opener = seal.sealer(mine, KEY)
    meta = signing.to_text(opener._seal(opener.meta_key, seal.META_INDEX, data))
    found = open_meta(opener, core(meta=meta), Report)
    assert msgspec.convert(msgspec.to_builtins(found), Report) == found
    for task in ("train", "evaluate", "sums"):
        with suppress(Refused):
            check_report(found, core(task=task), Plan())


# --- files ---------------------------------------------------------------------------------------------------------


def on_disk(read: Callable[[Path], object], suffix: str = "") -> Callable[[bytes], None]:
    """A reader of files as a function of bytes."""
    folder = tempfile.TemporaryDirectory(prefix="floe-fuzz-")
    path = Path(folder.name) / f"input{suffix}"

    def run(data: bytes, _keep: Any = folder) -> None:
        path.write_bytes(data)
        read(path)

    return run


def model(path: Path) -> None:
    """A weights file: what is taken is the package's, too, and passes as what the aggregator expects or is refused."""
    layout = weights.check_numbers(path)
    found = weights.read(path)
    assert sum(array.nbytes for array in found.values()) == layout.data_bytes
    assert all(np.isfinite(array).all() for array in found.values())
    for task in ("init", "sums", "train"):
        expected = Expectation(m.Phase("main", 1, 0, "init"), "", Plan(min_rows=1), layout, None, 10**6)
        with suppress(Refused):
            check_weights(path, core(task=task), expected)


def header(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The frame of a weights file: its header, whose length follows."""
    length = int.from_bytes(data[:8], "little")
    rest = data[8 + length :]
    return data[8 : 8 + length], lambda text: len(text).to_bytes(8, "little") + text + rest


def model_seeds() -> list[bytes]:
    sums = {"sums.count": np.array([9]), "sums.mean": np.zeros(2), "sums.m2": np.ones(2)}
    about = {"schema": SCHEMA.decode()}
    return [
        *(bytes.fromhex(case["file"]) for case in golden("valid/weights")),
        b"".join(weights.buffers(sums, about)),
        b"".join(weights.buffers({"w": np.zeros((2, 3), np.float32), "b": np.zeros((), np.float16)}, about)),
    ]


def npy(path: Path) -> None:
    found = read_npy(path, 10**6)
    for convert in (to_x, to_y):
        with suppress(DataError):
            convert(found, "x")


def npz(path: Path) -> None:
    for name in npz_names(path):
        read_npz(path, name, 10**6)


def npy_seeds() -> list[bytes]:
    arrays = (
        np.zeros((2, 3), np.float32),
        np.arange(4),
        np.array([{"a": 1}], dtype=object),
        np.zeros((2, 4, 4), np.uint8),
    )
    return [_saved(lambda file, a=a: np.save(file, a, allow_pickle=True)) for a in arrays]  # type: ignore[misc]


def npz_seeds() -> list[bytes]:
    def stored(file: io.BytesIO, method: int) -> None:
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("x.npy", npy_seeds()[0])
            archive.writestr("y.npy", npy_seeds()[1])

    return [_saved(lambda file, how=how: stored(file, how)) for how in (0, 8, 12, 14)]  # type: ignore[misc]


def _saved(write: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def of_json(*names: str, member: str = "") -> Callable[[], list[bytes]]:
    """The cases of golden files, or one member of each, as JSON."""

    def seeds() -> list[bytes]:
        cases = [case for name in names for case in golden(name)]
        return [json.dumps(case[member] if member else case).encode() for case in cases]

    return seeds


def texts_of(name: str, member: str = "") -> Callable[[], list[bytes]]:
    return lambda: [(case[member] if member else case).encode() for case in golden(name)]


TARGETS: dict[str, Target] = {
    "topic": Target(topic, texts_of("valid/topics", "topic")),
    "json": Target(parse_json, of_json("valid/canonical", "valid/messages")),
    "base64url": Target(base64url, texts_of("valid/proofs", "proof")),
    **{f"message-{word}": Target(message(kind), messages_of(word)) for word, kind in KINDS.items()},
    "heard": Target(heard, heard_seeds),
    "schema": Target(
        schema, lambda: [Schema((2,), 2, ("a", "b")).to_json().encode(), b'{"shape":[1,8,8],"classes":10}']
    ),
    "core": Target(cores, of_json("valid/transfers", member="core")),
    "ranges": Target(ranges, of_json("valid/ranges")),
    "chunk": Target(chunk, chunk_seeds),
    "report": Target(report, texts_of("valid/transfers", "report")),
    "weights": Target(on_disk(model), model_seeds, frame=header),
    "npy": Target(on_disk(npy, ".npy"), npy_seeds, (DataError,)),
    "npz": Target(on_disk(npz, ".npz"), npz_seeds, (DataError,)),
}
