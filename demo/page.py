"""The page beside a demo: `floe ui` on a free port, and the operator's key that lets one steer there."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable

from floe.children import Children, await_port, free_port
from floe.errors import ConfigError

Stopped = Callable[[], bool]
POLL_S = 0.2


def check() -> None:
    """That there can be a page: before anything is started. Raises `ConfigError`."""
    if importlib.util.find_spec("streamlit") is None:
        raise ConfigError(f"--ui: the page needs Streamlit: {sys.executable} -m pip install 'floe[ui]'")


def start(children: Children, tell: Callable[[str], None], stop: Stopped, *, enrols: bool) -> str:
    """Serve the page of the folder, and tell its address. Without enrolment an operator's key is made first."""
    if not enrols:
        children.wait(children.start("operator", "key", "operator"), stop)
    port = free_port()
    child = children.start("ui", "ui", "--bind", "127.0.0.1", "--port", str(port))
    await_port(child, port, stop)
    tell(f"the page: http://127.0.0.1:{port}")
    return f"http://127.0.0.1:{port}"


def stay(children: Children, stop: Stopped) -> None:
    """Until `stop`: the federation and the page go on. Raises the error of what ends by itself."""
    while not stop():
        if child := children.ended():
            raise child.fault()
        time.sleep(POLL_S)
