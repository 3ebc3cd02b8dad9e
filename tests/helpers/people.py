"""What the people of an enrolled federation do with their commands: an operator, and who sets up devices."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from helpers.federation import Federation, Sections
from helpers.process import Process

TRAINED = (
    "SELECT * FROM updates u JOIN rounds r USING (lineage, epoch, round, task) WHERE task = 'train' AND "
    "outcome = 'accepted' AND state = 'closed' AND device = ? AND u.id > ?"
)


def found(federation: Federation, sections: Sections) -> None:
    """A federation with a root and an operator, and without secret.key; nothing runs yet."""
    (federation.folder / "secret.key").unlink()
    federation.configure(sections)
    assert federation.start("new", "federation", "new").wait() == 0


def ordered(federation: Federation, *arguments: str, by: Sequence[str] = ("floe",)) -> Process:
    """A command under way."""
    (federation.folder / "logs" / "order.log").unlink(missing_ok=True)
    return federation.start("order", *arguments, by=by)


def order(federation: Federation, *arguments: str, by: Sequence[str] = ("floe",)) -> str:
    """What a command said that did what it should."""
    process = ordered(federation, *arguments, by=by)
    assert process.wait() == 0, process.said()
    federation.processes.remove(process)
    return process.said()


def code_in(said: str) -> str:
    """The code that `floe invite` has printed."""
    return re.findall(r"^\S{40,}$", said, re.MULTILINE)[-1]


def states(federation: Federation) -> dict[str, str]:
    """Name and state of each device, as an operator sees them."""
    rows = [json.loads(line) for line in order(federation, "devices", "list", "--json").splitlines() if line[0] == "{"]
    return {row["name"]: row["state"] for row in rows}


def join(federation: Federation, device: str) -> None:
    """It has asked, and is not let in yet."""
    code = code_in(order(federation, "invite", "--device", device))
    order(federation, "join", code, "--id", device, "--no-wait")


def let_in(federation: Federation, device: str) -> Process:
    """A running member."""
    join(federation, device)
    order(federation, "devices", "approve", device, "--yes")
    return federation.client(device)


def trains(federation: Federation, device: str) -> None:
    """From now on: an update of the device is accepted, and its round closes."""
    last = federation.query("SELECT coalesce(max(id), 0) AS id FROM updates")[0]["id"]
    federation.until(TRAINED, device, last)
