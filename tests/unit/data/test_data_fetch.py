"""A data set fetched over HTTP from this machine: checked before it is unpacked, and only once."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge_client.data.fetch import Published, fetch
from edge_client.data.images import CIFAR_TEST, CIFAR_TRAIN
from edge_client.data.load import load
from floe.errors import DataError

BATCHES = (*CIFAR_TRAIN, CIFAR_TEST)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address where it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def archive(names: tuple[str, ...] = BATCHES, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for label, name in enumerate(names):
            info = tarfile.TarInfo(f"../../cifar-10-batches-bin/{name}")
            info.size = 3073
            if name == link:
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(info, io.BytesIO(bytes([label]) * 3073))
    return buffer.getvalue()


def known(content: bytes, file: str = "c.tar.gz", max_bytes: int = 10**6) -> dict[str, Published]:
    return {"cifar10": Published({file: md5(content)}, BATCHES, within_gzip=False, max_bytes=max_bytes)}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_an_archive_with_the_right_hash_becomes_a_folder_that_loads(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    content = archive()
    (folder / "c.tar.gz").write_bytes(content)
    table = known(content)
    assert fetch("cifar10", f"{url}/c.tar.gz", tmp_path / "out" / "cifar10", table)
    assert load("out/cifar10", {}, tmp_path).train_y.tolist() == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "out" / "cifar10").iterdir()) == sorted(BATCHES)
    assert not fetch("cifar10", "http://127.0.0.1:1/", tmp_path / "out" / "cifar10", table)  # there already


def test_an_altered_archive_is_refused_and_nothing_is_kept(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "c.tar.gz").write_bytes(archive())
    with pytest.raises(DataError, match=r"MD5 is [0-9a-f]{32}, published is"):
        fetch("cifar10", f"{url}/c.tar.gz", tmp_path / "out", known(b"another"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", [archive(BATCHES[:5]), archive(link="test_batch.bin")])
def test_an_archive_without_a_usable_batch_is_refused(tmp_path: Path, served: tuple[Path, str], content: bytes) -> None:
    folder, url = served
    (folder / "c.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"no usable test_batch\.bin"):
        fetch("cifar10", f"{url}/c.tar.gz", tmp_path / "out", known(content))


def test_more_bytes_than_the_data_set_has_are_not_taken(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "c.tar.gz").write_bytes(bytes(5000))
    with pytest.raises(DataError, match="more than 4999 bytes"):
        fetch("cifar10", f"{url}/c.tar.gz", tmp_path / "out", known(bytes(5000), max_bytes=4999))


def test_gzipped_files_are_checked_by_what_is_in_them(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    contents = {"a.gz": b"one", "b.gz": b"two"}
    table = {"mnist": Published({n: md5(c) for n, c in contents.items()}, tuple(contents), True, 1000)}
    for level, (name, content) in enumerate(contents.items(), 1):
        (folder / name).write_bytes(gzip.compress(content, level))
    assert fetch("mnist", url, tmp_path / "out", table)
    assert gzip.decompress((tmp_path / "out" / "b.gz").read_bytes()) == b"two"
    (folder / "b.gz").write_bytes(gzip.compress(bytes(5000)))
    (tmp_path / "out" / "b.gz").unlink()
    with pytest.raises(DataError, match="unpacks to more than 1000 bytes"):
        fetch("mnist", url + "/", tmp_path / "out", table)
    (folder / "b.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"b\.gz: damaged"):
        fetch("mnist", url, tmp_path / "out", table)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "c.tar.gz"])
def test_only_http_is_spoken(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="http:// or https://"):
        fetch("cifar10", url, tmp_path, known(b""))


def test_an_address_that_does_not_answer_is_named(tmp_path: Path, served: tuple[Path, str]) -> None:
    for url in (f"{served[1]}/absent.tar.gz", "http://127.0.0.1:1/c.tar.gz", "http://[/c.tar.gz"):
        with pytest.raises(DataError, match="cannot be fetched") as caught:
            fetch("cifar10", url, tmp_path, known(b""))
        assert url in str(caught.value)


def test_the_real_files_have_the_published_hashes(tmp_path: Path, data_folder: Path) -> None:
    class Served(Quiet):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(data_folder / "mnist"), **kwargs)  # type: ignore[arg-type]

    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert fetch("mnist", f"http://127.0.0.1:{server.server_port}", tmp_path / "mnist")
        finally:
            server.shutdown()
            thread.join()
    assert load("mnist", {}, tmp_path).schema.shape == (1, 28, 28)
