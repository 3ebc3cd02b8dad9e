"""MNIST and CIFAR-10, fetched once from an address the user gives and checked by hash. The only network access here.

The hashes are the published MD5 sums: what stops an altered file is that nobody can make another one with the same
sum (a second preimage), which MD5 still resists.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_client.data.images import CIFAR_TEST, CIFAR_TRAIN
from floe.errors import DataError, StoreError

TIMEOUT_S = 60
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Published:
    """The files of a data set: what is downloaded (name -> MD5) and what must be there in the end.

    `within_gzip`: the MD5 is of the decompressed content, because the same content is served gzipped by many hands.
    """

    md5: Mapping[str, str]
    files: tuple[str, ...]
    within_gzip: bool
    max_bytes: int


CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}
PUBLISHED = {
    "mnist": Published(MNIST_MD5, tuple(MNIST_MD5), within_gzip=True, max_bytes=64 << 20),
    "cifar10": Published(
        {CIFAR_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
        (*CIFAR_TRAIN, CIFAR_TEST),
        within_gzip=False,
        max_bytes=256 << 20,
    ),
}


def fetch(name: str, url: str, out: Path, published: Mapping[str, Published] = PUBLISHED) -> bool:
    """Download `name` into `out`; False if it was there already.

    `url` is the folder the files lie in; where there is one file (cifar10), its own address. Every file is
    checked before it is unpacked or put in place. Raises `DataError` (address, hash, size, content) and `StoreError`.
    """
    if name not in published:
        raise DataError(f"{name!r} cannot be fetched; one of {', '.join(published)}")
    known = published[name]
    if all((out / file).is_file() for file in known.files):
        return False
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".fetch-") as work:
            for file, md5 in known.md5.items():
                address = url if len(known.md5) == 1 else f"{url.rstrip('/')}/{file}"
                path = Path(work) / file
                _download(address, path, known.max_bytes)
                _check(path, md5, address, known)
                _install(path, out, known)
    except OSError as error:
        raise StoreError(f"{out}: cannot keep {name}: {error.strerror or error}") from None
    return True


def _download(url: str, path: Path, max_bytes: int) -> None:
    if not url.startswith(("http://", "https://")):
        raise DataError(f"--url {url}: expected an address that starts with http:// or https://")
    try:
        response = urllib.request.urlopen(url, timeout=TIMEOUT_S)  # noqa: S310 (scheme checked above)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: cannot be fetched: {error}") from None
    with response, path.open("wb") as file:
        while block := _next_block(response, url):
            file.write(block)
            if file.tell() > max_bytes:
                raise DataError(f"{url}: more than {max_bytes} bytes, which is not this data set")


def _next_block(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: broke off: {error}") from None


def _check(path: Path, md5: str, url: str, known: Published) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    try:
        with gzip.open(path) if known.within_gzip else path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                size += len(block)
                if size > known.max_bytes:
                    raise DataError(f"{url}: unpacks to more than {known.max_bytes} bytes, which is not this data set")
                digest.update(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{url}: damaged: {error}") from None
    if digest.hexdigest() != md5:
        raise DataError(f"{url}: MD5 is {digest.hexdigest()}, published is {md5}: altered, or another file")


def _install(path: Path, out: Path, known: Published) -> None:
    if path.name in known.files:
        path.replace(out / path.name)
        return
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive if member.isreg()}
        for name in known.files:
            if name not in members or members[name].size > known.max_bytes:
                raise DataError(f"{path.name}: has no usable {name}")
            content = archive.extractfile(members[name])
            assert content is not None  # a regular file has content
            _keep(content.read(), path.with_name(name), out / name)


def _keep(content: bytes, work: Path, final: Path) -> None:
    work.write_bytes(content)
    work.replace(final)
