"""zstd (RFC 8878) in pieces, with a bound on what comes out: nothing from the wire decides how much memory it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import zstandard

from floe.errors import Refused

LEVEL = 3
MAX_WINDOW = 8 * 1024 * 1024  # RFC 8878, section 3.1.1.1.2: what a decoder should support at least
FEED = 256  # bytes that are taken in at a time: 64 blocks of 128 KiB may come of them, 8 MiB


def write_smaller(body: BinaryIO, size: int, pieces: Callable[[], Iterable[bytes]]) -> bool:
    """Append `pieces()`, together `size` bytes, as one frame; as they are, asked for again, where that is not smaller.

    Whether it is a frame. Raises `OSError`.
    """
    start = body.tell()
    frame = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=size)
    for piece in pieces():
        body.write(frame.compress(piece))
    body.write(frame.flush())
    if body.tell() - start < size:
        return True
    body.seek(start)
    body.truncate()
    for piece in pieces():
        body.write(piece)
    return False


def inflated(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """What one frame without dictionary holds, which is `size` bytes. Raises `Refused("weights", ...)` if it is not.

    Nothing may follow the frame. At most 8 MiB are held besides the window.
    """
    frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
    left = size
    for piece in pieces:
        for at in range(0, len(piece), FEED):
            if frame.eof:
                raise Refused("weights", "bytes behind the zstd frame")
            try:
                found = frame.decompress(piece[at : at + FEED])
            except zstandard.ZstdError as error:
                raise Refused("weights", f"not a zstd frame: {error}") from None
            left -= len(found)
            if left < 0:
                raise Refused("weights", f"a zstd frame of more than {size} bytes")
            yield found
    if left or not frame.eof or frame.unused_data:
        raise Refused("weights", f"a zstd frame that is {left} of {size} bytes short, or does not end where it should")
