"""What a device asks for: to be let in, or for other keys; the request itself, and what is kept of it until it is over.

The request's token and nonce are kept in `<state>/join.json`, mode 0600.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from floe.documents import Join, JoinReply, JoinRequest
from floe.errors import KeyFileError, StoreError
from floe.files import storing
from floe.identity import Identity, present, read_private, write_private
from floe.joincode import JoinCode
from floe.roster import seal_join
from floe.terminal import printable
from floe.topics import DeviceJoin
from floe.wire import Wire


class Asked(msgspec.Struct, frozen=True):
    """What has been asked for, with which key: the same after a restart."""

    token: str
    nonce: str
    key: str
    sealing: str
    version: int

    @classmethod
    def fresh(cls, code: JoinCode, key: str) -> Asked:
        return cls(code.token, secrets.token_hex(16), key, code.sealing, code.version)


def kept_asked(state: Path) -> Asked | None:
    """What was asked for from here; None if nothing was, or it is over. Raises `StoreError`, `KeyFileError`."""
    path = _file(state)
    if not present(path):
        return None
    try:
        return msgspec.json.decode(read_private(path), type=Asked)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: damaged ({error}); remove it, and ask with a new code") from None


def keep_asked(state: Path, asked: Asked) -> None:
    """Raises `StoreError`, `KeyFileError`."""
    forget_asked(state)
    write_private(_file(state), msgspec.json.encode(asked))


def forget_asked(state: Path) -> None:
    """Raises `StoreError`."""
    with storing(_file(state)):
        _file(state).unlink(missing_ok=True)


def ask(wire: Wire, lineage: str, recipient: str, join: Join, by: Identity | None = None) -> JoinRequest:
    """Publish a request, sealed to the aggregator's key `recipient`, signed by the wire's identity or the next one."""
    federation, name = wire.federation, wire.identity.name
    sealed = seal_join(join, federation, lineage, name, recipient)
    request, payload = wire.make(JoinRequest, by=by, to=lineage, sealed=sealed)
    wire.send_bytes(DeviceJoin(federation, name, lineage), payload)
    return request


def check_not_turned_down(reply: JoinReply) -> None:
    """Raises `KeyFileError` for an answer that ends the request."""
    detail = printable(reply.detail)
    if reply.state == "rejected":
        why = f": {detail}" if detail else ""
        raise KeyFileError(f"{reply.to!r} has been rejected by an operator{why}. Ask for a new code to try again")
    if reply.state == "refused":
        raise KeyFileError(f"aggregator {reply.sender!r} refuses {reply.to!r}: {detail}")


def _file(state: Path) -> Path:
    return state / "join.json"
