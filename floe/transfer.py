"""What a transfer is: its name, its chunks, which are missing. Pure: no file, no socket, no clock.

A manifest describes the transfer, a want asks for ranges of chunks, chunks arrive in any order, an answer ends it
(`PROTOCOL.md`, "Transfers").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from floe.errors import Refused
from floe.messages import MAX_CHUNKS, MAX_RANGES, Core, canonical
from floe.seal import sealed_length

CHUNK_BYTES = 64 * 1024
Ranges = tuple[tuple[int, int], ...]


def name_of(core: Core) -> str:
    """The name of a transfer: the first 32 hexadecimal digits of the SHA-256 of its core's canonical JSON."""
    return hashlib.sha256(canonical(msgspec.to_builtins(core))).hexdigest()[:32]


def chunk_bytes_for(size: int) -> int:
    """Bytes of one chunk before sealing: 64 KiB, doubled until at most 1,024 chunks are needed."""
    chunk = CHUNK_BYTES
    while chunk_count(size, chunk) > MAX_CHUNKS:
        chunk *= 2
    return chunk


def chunk_count(size: int, chunk_bytes: int) -> int:
    """How many chunks a payload of `size` bytes has; an empty payload has none."""
    return -(-size // chunk_bytes)


def chunk_length(core: Core, index: int) -> int:
    """Bytes of chunk `index` before sealing: `chunk_size`, less for the last."""
    return min(core.chunk_size, core.size - index * core.chunk_size)


def check_core(core: Core, max_bytes: int) -> None:
    """Sizes that agree with each other and with the receiver's cap, before anything is reserved.

    Raises `Refused`: `oversized`, `malformed`.
    """
    if core.size > max_bytes:
        raise Refused("oversized", f"{core.size} bytes, at most {max_bytes} accepted")
    if core.chunk_size != chunk_bytes_for(core.size):
        raise Refused("malformed", f"chunk_size {core.chunk_size}, for {core.size} bytes it is fixed by the protocol")
    if len(core.chunks) != chunk_count(core.size, core.chunk_size):
        raise Refused("malformed", f"{len(core.chunks)} chunk hashes for {core.size} bytes")


def to_ranges(indices: Iterable[int]) -> Ranges:
    """Sorted, disjoint half-open ranges that cover exactly these indices."""
    found: list[tuple[int, int]] = []
    for index in sorted(set(indices)):
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return tuple(found)


def from_ranges(ranges: Ranges, count: int) -> Iterator[int]:
    """The indices that a want asks for, ascending, each once; raises `Refused("malformed", ...)`."""
    end = 0
    for start, stop in ranges:
        if not end <= start < stop <= count:
            raise Refused("malformed", f"range [{start}, {stop}) after {end} in a transfer of {count} chunks")
        end = stop
    return (index for start, stop in ranges for index in range(start, stop))


@dataclass
class Assembly:
    """Which chunks of one transfer have been verified and written."""

    core: Core
    have: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return len(self.have) == len(self.core.chunks)

    def check(self, index: int, sealed: bytes) -> bool:
        """True for a chunk that is new and right, False for one already held; raises `Refused("chunk", ...)`."""
        if index >= len(self.core.chunks):
            raise Refused("chunk", f"chunk {index} of a transfer of {len(self.core.chunks)}")
        if index in self.have:
            return False
        length = sealed_length(self.core.suite, chunk_length(self.core, index))
        if len(sealed) != length:
            raise Refused("chunk", f"chunk {index} of {len(sealed)} bytes, not {length}")
        if hashlib.sha256(sealed).hexdigest() != self.core.chunks[index]:
            raise Refused("chunk", f"chunk {index} does not have the hash that its manifest gives")
        return True

    def missing(self) -> Ranges:
        """What to ask for: all that is missing, cut to what one want may carry."""
        absent = (i for i in range(len(self.core.chunks)) if i not in self.have)
        return to_ranges(absent)[:MAX_RANGES]
