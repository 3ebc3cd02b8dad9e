"""Who gets through to the page: a real `floe ui`, asked as browsers and others would."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPMessage
from pathlib import Path

import pytest
from helpers.page import ADDRESS
from helpers.process import environment
from websockets.sync.client import connect

from floe.config import load
from floe.store import open_log, read_log
from ui.command import check_access
from ui.door import Message
from ui.password import hashed
from ui.server import how

KEPT = hashed("correct horse", cost=2**14)


class Page:
    """A running `floe ui`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(self, path: str = "/", method: str = "GET", host: str = "", **headers: str) -> tuple[int, HTTPMessage]:
        """Status and headers of the answer, to who asks under a name."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, headers=({"Host": host} if host else {}) | headers)
            answer = connection.getresponse()
            if answer.status != 101:
                answer.read()
            return answer.status, answer.headers

    def talks(self, origin: str | None, host: str = "") -> bool:
        """Whether a script of that origin gets a websocket, asking under that name (RFC 6455, 4.1)."""
        asked = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "streamlit",
        }  # fmt: skip
        status, _ = self.ask("/_stcore/stream", host=host, **asked, **({"Origin": origin} if origin else {}))
        assert status in (101, 403)
        return status == 101


@contextmanager
def served(folder: Path, *flags: str, **extra: str) -> Iterator[Page]:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "floe", "ui", "--port", "0", *flags],
        cwd=folder,
        env=environment({"PYTHONPATH": str(root), **extra}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        found = ADDRESS.search(process.stdout.readline())
        assert found, process.communicate(timeout=60)
        yield Page(process, int(found[2]))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with served(tmp_path_factory.mktemp("door")) as running:
        yield running


def floe(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "floe", *arguments],
        cwd=folder,
        env=environment({"PYTHONPATH": str(Path(__file__).resolve().parents[2])}),
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_page_beyond_this_machine_needs_a_password(tmp_path: Path) -> None:
    for address in ("0.0.0.0", "::", "192.0.2.1"):
        done = floe(tmp_path, "ui", "--bind", address, "--port", "0")
        assert done.returncode == 2
        assert "needs a password" in done.stderr


def test_a_password_where_its_hash_belongs_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "floe.toml").write_text('[ui]\npassword = "correct horse"\n')
    done = floe(tmp_path, "ui", "--port", "0")
    assert done.returncode == 2
    assert "not a hash" in done.stderr
    assert "horse" not in done.stdout + done.stderr


def test_a_new_password_is_read_from_stdin_and_printed_as_a_line_that_the_page_takes(tmp_path: Path) -> None:
    done = floe(tmp_path, "ui", "--new-password", given="correct horse\n")
    assert done.returncode == 0
    assert "horse" not in done.stdout + done.stderr
    (tmp_path / "floe.toml").write_text(f"[ui]\n{done.stdout}")
    with served(tmp_path) as running:
        assert running.ask()[0] == 200


@pytest.mark.parametrize(("mode", "noted"), [(0o644, True), (0o640, False)])
def test_a_hash_that_others_can_read_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, noted: bool
) -> None:
    path = tmp_path / "floe.toml"
    path.write_text(f'[ui]\npassword = "{KEPT}"\n')
    path.chmod(mode)
    check_access(load(environ={}, file=path))
    assert ("chmod o-r" in capsys.readouterr().err) == noted


@pytest.mark.parametrize("given", ["", "\n"])
def test_no_password_is_an_error(tmp_path: Path, given: str) -> None:
    done = floe(tmp_path, "ui", "--new-password", given=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no password was given" in done.stderr


def test_a_script_of_the_page_itself_gets_through(page: Page) -> None:
    assert page.talks(f"http://127.0.0.1:{page.port}")
    assert page.talks(f"http://localhost:{page.port}", f"localhost:{page.port}")


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:1", "http://127.0.0.1", "null"])
def test_a_script_of_another_site_does_not(page: Page, origin: str) -> None:
    assert not page.talks(origin)


def test_a_name_of_another_site_that_leads_here_does_not(page: Page) -> None:
    host = f"evil.example:{page.port}"
    assert not page.talks(f"http://{host}", host)
    assert page.ask(host=host)[0] == 403


@pytest.mark.parametrize("host", [" ", "127.0.0.1@evil.example", "[", "localhost.evil.example"])
def test_what_is_no_name_of_this_machine_does_not(page: Page, host: str) -> None:
    assert page.ask(host=host)[0] in (400, 403)


def test_nobody_can_send_a_file(page: Page) -> None:
    for method in ("PUT", "POST", "DELETE", "OPTIONS"):
        assert page.ask("/_stcore/upload_file/session/file", method)[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "metrics", "metrics/", "%6detrics", "script-health-check", "upload_file/session/file", "agent/openapi.json",
        "bidi-components/x", "../component/x", "../auth/login", "../oauth2callback", "../app/static/x",
    ],
)  # fmt: skip
def test_what_the_page_does_without_is_not_there(page: Page, path: str) -> None:
    where = f"/{path.removeprefix('../')}" if path.startswith("../") else f"/_stcore/{path}"
    assert page.ask(where)[0] == 404
    assert page.ask(where, "HEAD")[0] == 404


@pytest.mark.parametrize("path", ["/", "/devices", "/_stcore/health", "/_stcore/host-config"])
def test_what_the_page_needs_is_there(page: Page, path: str) -> None:
    assert page.ask(path)[0] == 200


def test_what_a_request_says_of_where_it_comes_from_is_not_believed() -> None:
    seen = []

    async def app(scope: Message, receive: object, send: object) -> None:
        seen.append(scope["client"])

    serves = how(app)
    serves.load()
    told = {
        "type": "http", "client": ("127.0.0.1", 5000), "scheme": "http",
        "headers": [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")],
    }  # fmt: skip
    asyncio.run(serves.loaded_app(told, None, None))
    assert seen == [("127.0.0.1", 5000)]


def test_nobody_can_show_it_within_his_own_page(page: Page) -> None:
    _, headers = page.ask()
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_first_page_opens_by_its_own_name_too(page: Page) -> None:
    status, headers = page.ask("/overview?a=b%20c")
    assert (status, headers["Location"]) == (307, "./?a=b%20c")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/devices"])
def test_the_page_knows_where_its_server_is_and_is_as_long_as_it_says(page: Page, path: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)) as connection:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        content = answer.read()
    assert content.count(b"BACKEND_BASE_URL") == 1
    assert int(answer.headers["Content-Length"]) == len(content)
    assert int(page.ask(path, "HEAD")[1]["Content-Length"]) == len(content)


def test_with_a_password_a_proxy_may_ask_by_any_name_but_only_for_its_own_page(tmp_path: Path) -> None:
    (tmp_path / "floe.toml").write_text(f'[ui]\npassword = "{KEPT}"\n')
    with served(tmp_path) as running:
        assert running.ask(host="floe.example")[0] == 200
        assert running.talks("https://floe.example", "floe.example")
        assert not running.talks("https://evil.example", "floe.example")


def test_files_of_streamlits_own_open_nothing_and_none_is_written(tmp_path: Path) -> None:
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "config.toml").write_text(
        "[server]\nenableCORS = false\nenableXsrfProtection = false\nenableStaticServing = true\n"
        'baseUrlPath = "elsewhere"\n[client]\nshowErrorDetails = "full"\n'
    )
    (tmp_path / ".streamlit" / "secrets.toml").write_text('FLOE_UI_BIND = "0.0.0.0"\n')
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    with served(tmp_path, HOME=str(home), STREAMLIT_SERVER_ENABLE_CORS="false") as running:
        assert not running.talks("https://evil.example")
        assert running.ask("/")[0] == 200
        assert running.talks(None)
    assert list(home.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == [".streamlit", "home"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_quietly_with_a_visitor_connected(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with (
        served(tmp_path) as running,
        connect(
            f"ws://127.0.0.1:{running.port}/_stcore/stream",
            subprotocols=["streamlit"],  # type: ignore[list-item]
        ),
    ):
        running.process.send_signal(number)
        assert running.process.wait(30) == code
        assert running.process.communicate() == ("", "")


def test_a_place_that_is_taken_is_named(page: Page, tmp_path: Path) -> None:
    done = floe(tmp_path, "ui", "--port", str(page.port))
    assert done.returncode == 2
    assert f"127.0.0.1:{page.port}" in done.stderr
    assert "--port" in done.stderr


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that everybody may look into, and nobody else write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_may_only_read_sees_the_log_while_it_is_written_and_when_it_is_not(readable: Path) -> None:
    path = readable / "floe.sqlite"
    with closing(open_log(path).conn) as writer:
        writer.execute("INSERT INTO broker VALUES ('$SYS/x', '1', 'now')")
        writer.commit()
        assert _rows_as_nobody(path) == 1
    assert not path.with_name("floe.sqlite-wal").exists()
    assert _rows_as_nobody(path) == 1
    assert [found.name for found in readable.iterdir()] == ["floe.sqlite"]


def _rows_as_nobody(path: Path) -> int:
    os.seteuid(65534)
    try:
        with closing(read_log(path).conn) as reader:
            return int(reader.execute("SELECT count(*) FROM broker").fetchone()[0])
    finally:
        os.seteuid(0)
