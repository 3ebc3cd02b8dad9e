"""Serves Streamlit's page in this process until a signal comes: no file of Streamlit's is read, none is written."""

from __future__ import annotations

import asyncio
import importlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.middleware import Middleware
from streamlit import App
from streamlit import config as options

from ui.door import Door

SCRIPT = Path(__file__).parent / "entry" / "app.py"
STOP_S = 1  # for browsers to hear that we go
MAX_SAID_BYTES = 2**20  # by a browser in one message: what is typed and clicked
# Nothing of Streamlit's own that talks to the outside, watches files, takes files, or shows its insides to a reader.
OPTIONS = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.allowedOrigins": [],
    "client.toolbarMode": "minimal",
    "global.developmentMode": False,
    "logger.hideWelcomeMessage": True,
    "logger.level": "error",
    "runner.magicEnabled": False,
    "secrets.files": [],
    "server.baseUrlPath": "",
    "server.corsAllowedOrigins": [],
    "server.enableAgentApi": False,
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxUploadSize": 1,
    "server.runOnSave": False,
    "server.trustedUserHeaders": {},
}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 0}


def serve(listening: socket.socket, hosts: Sequence[str], tell: Callable[[], None]) -> int:
    """The exit code, once a signal has come. `hosts` as for `Door`; `tell` is called when the page can be asked for."""
    _configure(listening.getsockname())
    importlib.import_module("ui.frame")  # what every page needs: or else the first visitor waits for it
    app = App(SCRIPT, middleware=[Middleware(Door, hosts=hosts)])
    server = _Server(how(app), tell)
    asyncio.run(server.serve(sockets=[listening]))
    return server.code


def how(app: Any) -> uvicorn.Config:
    """How an ASGI app is served. Where a request comes from is what the connection says, and no header (`ui.login`)."""
    return uvicorn.Config(
        app, access_log=False, log_config=None, log_level="critical", lifespan="on", ws="websockets-sansio",
        ws_max_size=MAX_SAID_BYTES, ws_per_message_deflate=False,
        timeout_graceful_shutdown=STOP_S, proxy_headers=False,
    )  # fmt: skip


def _configure(place: tuple[str, int]) -> None:
    # A `.streamlit` of the folder where one happens to stand must not open the door: its files are not looked for.
    setattr(options, "get_config_files", lambda name: [])  # noqa: B010 (mypy minds an assignment)
    given = {**OPTIONS, "server.address": place[0], "server.port": place[1]}
    options.get_config_options(force_reparse=True, options_from_flags=given)


class _Server(uvicorn.Server):
    """Uvicorn, which tells when it is ready, and ends by signal with the exit codes of Floe's other processes."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self.code = 0
        self._tell = tell

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in CODES:
            loop.add_signal_handler(number, self._end, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    def _end(self, number: signal.Signals) -> None:
        self.should_exit, self.code = True, CODES[number]
