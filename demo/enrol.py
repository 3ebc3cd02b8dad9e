"""How the devices of a demo are let in, as a person would do it: federation, invitations, requests, approval.

Every step is a command of its own (`floe federation new`, `floe invite`, `floe join`, `floe devices approve`). Here the
operator compares no number: the devices are on this machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

from floe.children import Child, Children

Stopped = Callable[[], bool]
WAIT_S = 120


def found(children: Children, stop: Stopped) -> None:
    """Make the federation: before its aggregator starts."""
    children.wait(children.start("federation", "federation", "new"), stop)


def let_in(children: Children, names: Sequence[str], stop: Stopped) -> None:
    """Invite the devices, have each ask, approve all. Raises the error of the command that failed."""
    invited = [word for name in names for word in ("--device", name)]
    lines = map(json.loads, children.said("invite", stop, "invite", "--json", *invited))
    codes = {line["device"]: line["code"] for line in lines}
    asking: list[Child] = []
    for name in names:
        if len(asking) >= 2 * (os.cpu_count() or 1):
            children.wait(asking.pop(0), stop)
        if stop():
            return
        asking.append(children.start(f"join-{name}", "join", codes[name], "--id", name, "--no-wait"))
    for child in asking:
        children.wait(child, stop)
    if not stop():
        wait = ("--yes", "--wait", str(WAIT_S))
        children.wait(children.start("approve", "devices", "approve", *names, *wait), stop)
