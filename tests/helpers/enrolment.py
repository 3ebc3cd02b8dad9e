"""A federation whose devices are enrolled by the commands that people use; made once, then copied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from floe.anchor import read_anchor
from floe.identity import Identity, read_identity
from floe.roster import Anchor, Roster, read_head
from helpers.broker import broker_on, free
from helpers.federation import Federation, Sections

OPERATOR = "operator"
DEVICES = ("a", "b", "c", "ex")
REVOKED = "ex"


class Enrolled(Federation):
    """A federation without secret.key. Of `template`, another one that has ended, it is a copy with the same keys."""

    def __init__(self, folder: Path, port: int, template: Path | None = None) -> None:
        if template is not None:
            shutil.copytree(template, folder, ignore=shutil.ignore_patterns("logs", "peers", ".lock"))
        super().__init__(folder, port, secret=False)

    def order(self, *arguments: str, by: tuple[str, ...] = ("floe",), code: int = 0) -> str:
        """A command that ends; what it said."""
        process = self.start("orders", *arguments, by=by)
        before = len(process.said())
        assert process.wait() == code, f"floe {' '.join(arguments)}:\n{self.said()}"
        return process.said()[before:]

    def invite(self, device: str) -> str:
        """A code for a device."""
        said = self.order("invite", "--device", device, "--json")
        code: str = next(json.loads(line)["code"] for line in said.splitlines() if line.startswith("{"))
        return code

    def members(self) -> dict[str, str]:
        """The state of each device and request, as `floe devices list` shows it."""
        said = self.order("devices", "list", "--json")
        found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return {member["name"]: member["state"] for member in found}

    def enrol(self, *devices: str) -> None:
        """Invite, join, approve. The aggregator must run."""
        joining = [self.start(f"join-{d}", "join", self.invite(d), "--id", d) for d in devices]
        for device in devices:
            self.order("devices", "approve", device, "--wait", "30", "--yes")
        for process in joining:
            assert process.wait() == 0, process.said()

    @property
    def anchor(self) -> Anchor:
        anchor = read_anchor(self.folder / "federation.pub")
        assert anchor is not None
        return anchor

    @property
    def root(self) -> Identity:
        return read_identity(self.folder / "root" / "root.pem", "root")

    @property
    def operator(self) -> Identity:
        return read_identity(self.folder / "operator.pem", OPERATOR)

    def known(self, device: str) -> dict[str, str]:
        """The texts of the head and the entry that a device has kept."""
        kept: dict[str, str] = json.loads((self.state(device) / "roster.json").read_text())
        return kept

    def roster(self, device: str) -> Roster:
        return read_head(self.known(device)["head"], self.anchor)

    def state(self, device: str) -> Path:
        return self.folder / "state" / f"device-{device}"


def new_template(folder: Path, sections: Sections | None = None) -> Path:
    """The folder of a federation with `DEVICES` enrolled and `REVOKED` put out, all its processes ended."""
    with broker_on(folder / "broker", free()) as broker:
        federation = Enrolled(folder / "federation", broker.port)
        try:
            federation.configure(sections)
            federation.order("federation", "new")
            federation.aggregator()
            federation.enrol(*DEVICES)
            federation.order("devices", "revoke", REVOKED)
        finally:
            federation.close()
    return federation.folder
