"""Who may connect and what each may say: members -> Mosquitto's ACL and password file as text. Pure.

Mosquitto looks at the ACL when it delivers, not when somebody subscribes: a filter with `+` is always taken, and brings
what the ACL lets through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from floe.logins import is_hash
from floe.topics import NAME


@dataclass(frozen=True)
class Member:
    """One login: its name, and the hash of its password (`floe.logins`) or "" where it has none."""

    name: str
    password: str = ""

    def __post_init__(self) -> None:
        # Both stand in a line of a file that Mosquitto believes.
        if re.fullmatch(NAME, self.name) is None:
            raise ValueError(f"not a name of Floe: {self.name[:80]!r}")
        if self.password and not is_hash(self.password):
            raise ValueError(f"{self.name}: not a hash of Mosquitto ($7$101$...): {self.password[:80]!r}")


@dataclass(frozen=True)
class Members:
    """Everybody who may log in: `device.<name>`, `lineage.<name>`, `operator.<name>`, and `broker`, which follows the
    roster (`broker` here is the hash of its password, or "")."""

    federation: str
    devices: tuple[Member, ...] = ()
    lineages: tuple[Member, ...] = ()
    operators: tuple[Member, ...] = ()
    broker: str = ""

    def __post_init__(self) -> None:
        Member(self.federation, self.broker)


def acl(members: Members) -> str:
    """The text of the ACL: what the lobby's strangers may do, and one block for each login."""
    branch = f"floe/{members.federation}"
    blocks = [
        "# Rendered by `floe broker` from the roster. A device writes below its own name, and nobody else does.",
        _lines(*_lobby(branch)),
        _block("broker", f"read {branch}/lineage/+/roster", f"read {branch}/lineage/+/to/+/entry", "read $SYS/#"),
        *(_block(f"lineage.{member.name}", *_lineage(branch, member.name)) for member in members.lineages),
        *(_block(f"operator.{member.name}", *_operator(branch, member.name)) for member in members.operators),
        *(_block(f"device.{member.name}", *_device(branch, member.name)) for member in members.devices),
    ]
    return "\n".join(blocks)


def passwords(members: Members) -> str:
    """The text of the password file: a line for each login that has a password. Where it has none it lets nobody in."""
    return "".join(f"{login}:{password}\n" for login, password in _logins(members) if password)


def _logins(members: Members) -> Iterator[tuple[str, str]]:
    yield "broker", members.broker
    kinds = {"lineage": members.lineages, "operator": members.operators, "device": members.devices}
    for kind, found in kinds.items():
        yield from ((f"{kind}.{member.name}", member.password) for member in found)


def _lobby(branch: str) -> Iterator[str]:
    yield f"write {branch}/device/+/+/join"
    yield f"read {branch}/lineage/+/roster"
    yield f"read {branch}/lineage/+/to/+/entry"
    yield f"read {branch}/lineage/+/to/+/join"


def _device(branch: str, name: str) -> Iterator[str]:
    yield f"write {branch}/device/{name}/#"
    yield f"read {branch}/device/{name}/status"
    yield from (f"read {branch}/lineage/+/{kind}" for kind in ("status", "round", "model", "roster", "+/chunk/#"))
    yield f"read {branch}/lineage/+/to/{name}/#"


def _lineage(branch: str, name: str) -> Iterator[str]:
    yield f"readwrite {branch}/lineage/{name}/#"
    yield f"read {branch}/device/#"
    yield f"read {branch}/operator/#"
    yield "read $SYS/#"


def _operator(branch: str, name: str) -> Iterator[str]:
    yield f"write {branch}/operator/{name}/#"
    yield from (f"read {branch}/lineage/+/{kind}" for kind in ("status", "round", "roster"))
    yield f"read {branch}/lineage/+/to/{name}/#"


def _block(login: str, *rights: str) -> str:
    return f"user {login}\n{_lines(*rights)}"


def _lines(*rights: str) -> str:
    return "".join(f"topic {right}\n" for right in rights)
