"""`floe ui` of a federation, as a process of its own."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

from helpers.federation import Federation
from helpers.process import Process

ADDRESS = re.compile(r"the page: (http://\S+:(\d+))\s")


class Served:
    """A running `floe ui`; `address` is what it printed. It ends with the federation."""

    def __init__(
        self, federation: Federation, *flags: str, name: str = "ui", env: Mapping[str, str] | None = None
    ) -> None:
        self._federation = federation
        self._name = name
        self._flags = flags
        self._env = env
        self.process, self.address, self.port = self._start(0)

    def restart(self) -> None:
        """Kill it, and start it where it was."""
        self.process.kill()
        self.process, self.address, self.port = self._start(self.port)

    def _start(self, port: int) -> tuple[Process, str, int]:
        log = self._federation.folder / "logs" / f"{self._name}.log"
        before = log.stat().st_size if log.exists() else 0
        process = self._federation.start(self._name, "ui", "--port", str(port), *self._flags, env=self._env)
        self._federation.wait(
            lambda: ADDRESS.search(process.said()[before:]) is not None or not process.running,
            "the address of the page",
        )
        found = ADDRESS.search(process.said()[before:])
        assert found, process.said()
        self._federation.wait(lambda: _listens(int(found[2])), "the page")
        return process, found[1], int(found[2])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
