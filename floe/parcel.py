"""A transfer on disk: its sealed chunks in a file, written whole by its maker; its payload, written by a receiver.

Whoever holds it may serve it. Reads and writes files; knows no topic and no clock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from floe.errors import Refused, StoreError
from floe.files import replacing, set_aside, storing, write_atomically
from floe.files import sync as to_disk
from floe.keyring import Keyring
from floe.messages import Core, Envelope, Kind, Phase
from floe.seal import Sealer, sealed_length, sealer
from floe.transfer import Assembly, check_core, chunk_bytes_for, chunk_count, chunk_length, name_of

Buffers = Sequence[memoryview]


@dataclass(frozen=True)
class Parcel:
    """A whole transfer, ready to be served: `chunks` is the file of its sealed chunks, in order."""

    core: Core
    content_key: bytes
    chunks: Path

    @cached_property  # it is asked for with every chunk, and hashes up to 70 kB
    def name(self) -> str:
        return name_of(self.core)

    def envelope(self, keyring: Keyring, to: str) -> Envelope:
        return keyring.envelope(self.core, self.content_key, to)

    def chunk(self, index: int) -> bytes:
        """The sealed bytes of one chunk."""
        with self.chunks.open("rb", buffering=0) as file:
            file.seek(index * sealed_length(self.core.suite, self.core.chunk_size))
            return file.read(sealed_length(self.core.suite, chunk_length(self.core, index)))


class Saved(msgspec.Struct, frozen=True):
    """What is kept beside the chunks of a parcel, so that it can be served after a restart."""

    core: Core
    content_key: bytes


def seal_meta(
    meta: str, keyring: Keyring, *, federation: str, phase: Phase, kind: Kind, sender: str, base: str, size: int = 0
) -> tuple[Core, bytes]:
    """The core of a new transfer with its report sealed, and its fresh content key. Writes nothing.

    Of size 0 it has no chunks, and is whole; otherwise the hashes of its chunks are still to be put in.
    """
    chunk_bytes = chunk_bytes_for(size)
    draft = msgspec.convert(
        {"federation": federation, "kind": kind, "sender": sender, "base": base, "suite": keyring.suite_for(kind),
         "salt": os.urandom(16).hex(), "commitment": "", "size": size, "chunk_size": chunk_bytes,
         "chunks": ["0" * 64] * chunk_count(size, chunk_bytes), "meta": "", **msgspec.structs.asdict(phase)},
        Core,
    )  # fmt: skip
    content_key = keyring.new_content_key()
    seal = sealer(draft, content_key)
    return msgspec.structs.replace(draft, commitment=seal.commitment, meta=seal.seal_meta(meta)), content_key


def pack(
    folder: Path, source: Path | Buffers | None, meta: str, keyring: Keyring, *, federation: str, phase: Phase,
    kind: Kind, sender: str, base: str, sync: bool = True,
) -> Parcel:  # fmt: skip
    """Seal a file, or what would be one (None: a report without weights) into a new parcel in `folder`.

    Writes `<name>.chunks` and then `<name>.json`, each atomically: the second says that the parcel is whole. With
    `sync` both are on the disk when this returns; without, `saved_parcels` finds what a power cut has left of it.
    Raises `StoreError`.
    """
    size = source.stat().st_size if isinstance(source, Path) else sum(len(buffer) for buffer in source or ())
    draft, content_key = seal_meta(
        meta, keyring, federation=federation, phase=phase, kind=kind, sender=sender, base=base, size=size
    )
    seal = sealer(draft, content_key)
    packing = folder / f"{draft.salt}.packing"
    core = msgspec.structs.replace(draft, chunks=_seal_chunks(source, packing, draft, seal))
    parcel = Parcel(core, content_key, folder / f"{name_of(core)}.chunks")
    with storing(parcel.chunks):
        packing.replace(parcel.chunks)
    record = parcel.chunks.with_suffix(".json")
    write_atomically(record, msgspec.json.encode(Saved(core, content_key)), sync=False)
    if sync:
        to_disk(parcel.chunks, record)
    return parcel


def saved_parcels(folder: Path, tell: Callable[[str], None]) -> list[Parcel]:
    """The whole parcels in a folder, oldest first.

    What an interrupted `pack` or `forget` left is removed: `*.packing`, `.*.part`, `*.chunks` without their record.
    What `load_parcel` finds damaged is set aside, record and chunks, and `tell` is told. Raises `StoreError`.
    """
    records = sorted(folder.glob("*.json"), key=lambda path: path.lstat().st_mtime_ns)
    whole = {path.with_suffix(".chunks") for path in records}
    with storing(folder):
        for path in (*folder.glob("*.packing"), *folder.glob(".*.part"), *(set(folder.glob("*.chunks")) - whole)):
            path.unlink()
    found = []
    for path in records:
        try:
            found.append(load_parcel(path))
        except (msgspec.MsgspecError, OSError, ValueError, Refused) as error:
            for part in (path, path.with_suffix(".chunks")):
                if os.path.lexists(part):
                    aside = set_aside(part)
                    tell(f"{part}: set aside as {aside.name}: the transfer is damaged ({error})")
    return found


def load_parcel(record: Path) -> Parcel:
    """The parcel that `<name>.json` speaks of, with the hash of every chunk compared.

    Raises `MsgspecError`, `OSError`, `ValueError`, `Refused` for what cannot be served.
    """
    saved = msgspec.json.decode(record.read_bytes(), type=Saved)
    parcel = Parcel(saved.core, saved.content_key, record.with_suffix(".chunks"))
    core = parcel.core
    check_core(core, core.size)
    if parcel.name != record.stem:
        raise ValueError(f"{record.name} speaks of transfer {parcel.name}")
    if sealer(core, parcel.content_key).commitment != core.commitment:
        raise ValueError(f"the content key in {record.name} is not the one that the transfer is committed to")
    expected = sum(sealed_length(core.suite, chunk_length(core, index)) for index in range(len(core.chunks)))
    if (size := parcel.chunks.stat().st_size) != expected:
        raise ValueError(f"{parcel.chunks.name} has {size} bytes, not {expected}")
    for index, right in enumerate(core.chunks):
        if hashlib.sha256(parcel.chunk(index)).hexdigest() != right:
            raise ValueError(f"chunk {index} in {parcel.chunks.name} does not have its hash")
    return parcel


def forget(parcel: Parcel) -> None:
    """Remove a parcel from the disk; the record first, so that a half-removed one is not taken for whole."""
    parcel.chunks.with_suffix(".json").unlink(missing_ok=True)
    parcel.chunks.unlink(missing_ok=True)


def open_parcel(parcel: Parcel, out: Path) -> str:
    """Open a whole parcel into `out`, atomically, not synced; the SHA-256 of it. Raises `Refused`, `StoreError`."""
    opener, digest = sealer(parcel.core, parcel.content_key), hashlib.sha256()
    with replacing(out, sync=False) as file:
        for index in range(len(parcel.core.chunks)):
            opened = opener.open(index, parcel.chunk(index))
            digest.update(opened)
            file.write(opened)
    return digest.hexdigest()


class Incoming:
    """A transfer that is being received into one file, which is the payload when all is there.

    Every chunk is checked against the manifest and opened before it is written. Nothing need be synced before the file
    has its place: `resume` finds what an earlier process wrote by sealing it again, which gives the same bytes with
    every suite but Fernet, whose tokens are random; there everything is asked for again.
    """

    def __init__(self, core: Core, opener: Sealer, path: Path) -> None:
        self.assembly = Assembly(core)
        self.opener = opener
        self.path = path
        self._part = path
        self._digest = hashlib.sha256()
        self._digested = 0  # chunks, from the first: they mostly come in order

    @property
    def core(self) -> Core:
        return self.assembly.core

    def resume(self) -> None:
        """Count the chunks that are already in the file; what cannot be read is set aside. Raises `StoreError`."""
        if self.core.suite == "fernet":
            return
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError:  # not a file, or none that can be read
            set_aside(self.path)
            return
        with file:
            for index, right in enumerate(self.core.chunks):
                opened = file.read(self.core.chunk_size)[: chunk_length(self.core, index)]
                if hashlib.sha256(self.opener.seal(index, opened)).hexdigest() == right:
                    self._take(index, opened)

    def add(self, index: int, sealed: bytes) -> bool:
        """Check, open and write one chunk; False if it was there.

        Raises `Refused`: `chunk` if it is not the manifest's, `unsealing` if it is and does not open, as none of this
        transfer will; and `StoreError`.
        """
        if not self.assembly.check(index, sealed):
            return False
        opened = self.opener.open(index, sealed)
        if len(opened) != (length := chunk_length(self.core, index)):
            raise Refused("unsealing", f"chunk {index} opens to {len(opened)} bytes, not {length}")
        # The file is opened for each chunk: thousands of waiting transfers must not hold a descriptor each.
        with storing(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                written = os.pwrite(descriptor, opened, index * self.core.chunk_size)
            finally:
                os.close(descriptor)
        if written != len(opened):
            raise StoreError(f"{self.path}: no space left for chunk {index}; it is asked for again")
        self._take(index, opened)
        return True

    def finish(self) -> str:
        """All is there: the SHA-256 of the payload, whose file ends where it ends.

        Raises `StoreError`; if the file has gone, all of it is missing again.
        """
        digest = self._digest.copy()
        with storing(self.path):
            try:
                with self.path.open("r+b") as file:
                    file.truncate(self.core.size)  # an earlier transfer may have left more
                    file.seek(self._digested * self.core.chunk_size)
                    while piece := file.read(self.core.chunk_size):
                        digest.update(piece)
            except FileNotFoundError:
                self.path, self._digest, self._digested = self._part, hashlib.sha256(), 0
                self.assembly.have.clear()
                raise
        return digest.hexdigest()

    def move(self, out: Path) -> None:
        """Give the finished file its place, not synced; again if need be, to another. Raises `StoreError`."""
        with storing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            self.path.replace(out)
        self.path = out

    def remove(self) -> None:
        """The transfer has ended: remove the file, if it has not been moved."""
        self._part.unlink(missing_ok=True)

    def _take(self, index: int, opened: bytes) -> None:
        self.assembly.have.add(index)
        if index == self._digested:
            self._digest.update(opened)
            self._digested += 1


def _seal_chunks(source: Path | Buffers | None, out: Path, core: Core, seal: Sealer) -> tuple[str, ...]:
    hashes = []
    with storing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with out.open("wb") as file:
                for index, chunk in enumerate(_cut(source, core.chunk_size)):
                    sealed = seal.seal(index, chunk)
                    hashes.append(hashlib.sha256(sealed).hexdigest())
                    file.write(sealed)
        except BaseException:
            out.unlink(missing_ok=True)
            raise
    return tuple(hashes)


def _cut(source: Path | Buffers | None, length: int) -> Iterator[bytes]:
    """The payload in chunks."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            while chunk := file.read(length):
                yield chunk
        return
    chunk = b""
    for buffer in source or ():
        at = 0
        while at < len(buffer):
            piece = buffer[at : at + length - len(chunk)]
            at, chunk = at + len(piece), b"".join((chunk, piece))
            if len(chunk) == length:
                yield chunk
                chunk = b""
    if chunk:
        yield chunk
