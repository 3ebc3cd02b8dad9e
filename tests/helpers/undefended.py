"""`floe ...` with defences that can be switched off: the one called NAME is off while a file `off-NAME` is in the
working directory. For tests that show what an attack does without it.

python -m helpers.undefended aggregator
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aggregator.intake import Expectation
from floe import cli
from floe.documents import Head
from floe.errors import Refused
from floe.identity import write_private
from floe.messages import Core
from floe.operators import Operators
from floe.roster import Roster, _document
from floe.seal import TAG_BYTES, Sealer, _nonce, sealer, unwrap_group, unwrap_hpke, unwrap_shared
from floe.signing import from_text, to_text, verify
from floe.transfer import chunk_length

Weak = Callable[..., Any]


@dataclass(frozen=True)
class Defence:
    """`weak` gives the function that takes the place of the one at `places` ("module:name")."""

    weak: Callable[[Any], Weak]
    places: tuple[str, ...]


def nothing(*places: str, result: object = None) -> Defence:
    """A check that finds no fault."""
    return Defence(lambda original: lambda *arguments, **named: result, places)


def prepared(prepare: Callable[..., object], *places: str) -> Defence:
    """A check before which the world is as it wants it."""

    def weak(original: Any) -> Weak:
        def call(*arguments: Any) -> Any:
            changed = prepare(*arguments)
            return original(*(changed if isinstance(changed, tuple) else arguments))

        return call

    return Defence(weak, places)


def _read(*, federation: bool) -> Callable[[Any], Weak]:
    def read(wire: Any, received: Any, kind: Any, sender: str) -> Any:
        message = verify(received.payload, kind)
        wrong = message.federation != wire.federation if federation else message.sender != sender
        if wrong:
            raise Refused("not-for-us", "of another federation or sender")
        return message

    return lambda original: read


def _read_head(*, member: bool) -> Callable[[Any], Weak]:
    """Without a look at who signs (`member`), or at when the delegation ended."""

    def read(text: str, anchor: Any) -> Roster:
        head = _document(text, Head, anchor)
        roster = Roster(text, head, resolve_name("floe.roster:read_delegation")(head.delegation, anchor))
        wrong = head.issued > roster.delegation.until if member else (head.sender, head.key) not in roster.operators()
        if wrong:
            raise Refused("roster", "by nobody who may, or not any more")
        return roster

    return lambda original: read


def _read_delegation(original: Any) -> Weak:
    return lambda text, anchor: _document(text, resolve_name("floe.documents:Delegation"), anchor)


def _add(original: Any) -> Weak:
    """Whatever comes as a chunk, opened as a stream cipher opens it, and written where it should be."""

    def add(incoming: Any, index: int, sealed: bytes) -> bool:
        core: Core = incoming.core
        if index in incoming.assembly.have:
            return False
        opened = _unauthenticated(incoming.opener, index, sealed)
        with incoming.path.open("r+b" if incoming.path.exists() else "wb") as file:
            file.seek(index * core.chunk_size)
            file.write(opened[: chunk_length(core, index)])
        incoming._take(index, opened)
        return True

    return add


def _unauthenticated(opener: Sealer, index: int, sealed: bytes) -> bytes:
    """RFC 8439, 2.8, and NIST SP 800-38D, 7.2, without their tags."""
    if opener.suite == "plaintext":
        return sealed
    nonce = _nonce(index)
    if opener.suite == "chacha20-poly1305":
        cipher: Any = Cipher(algorithms.ChaCha20(opener.chunk_key, (1).to_bytes(4, "little") + nonce), None)
    else:
        cipher = Cipher(algorithms.AES(opener.chunk_key), modes.CTR(nonce + (2).to_bytes(4, "big")))
    opened: bytes = cipher.decryptor().update(sealed[:-16])
    return opened


def _open(original: Any) -> Weak:
    """Whatever suite and wrap a message chooses."""

    def open_(keyring: Any, core: Core, envelope: Any) -> Sealer:
        secret = keyring.secret or b""
        if core.suite == "plaintext":
            return sealer(core, b"")
        match envelope.wrap:
            case "none":
                return sealer(core, from_text(envelope.key))
            case "shared":
                return sealer(core, unwrap_shared(core, envelope, secret))
            case "hpke":
                return sealer(core, unwrap_hpke(core, envelope, secret, keyring.private))
            case _:
                return sealer(core, unwrap_group(core, envelope, secret, keyring.ring.group_key))

    return open_


def _renew(original: Any) -> Weak:
    """The head asks for another group key, and gets the same under another number."""

    def renew(entries: Any) -> bool:
        ring, group = entries._ring, entries._members.roster.head.group
        path = entries._folder / f"group-{group}.key"
        if ring.group_key and not path.exists():
            write_private(path, to_text(ring.group_key).encode())
        return bool(original(entries))

    return renew


def _announce(original: Any) -> Weak:
    """A model that does not open is given up, whatever may be on its way."""

    def announce(download: Any, manifest: Any, **named: Any) -> None:
        try:
            original(download, manifest, **named)
        except Refused as refusal:
            download._unusable = (manifest.core.base, str(refusal))
            raise

    return announce


def _check_manifest(original: Any) -> Weak:
    """Without phase and base."""

    def check(manifest: Any, topic: Any, expected: Expectation) -> None:
        core = manifest.core
        original(manifest, topic, replace(expected, phase=core.phase, base=core.base))

    return check


def _row(column: str, value: object) -> Callable[..., None]:
    """The invitation of this token, as if nobody had said otherwise of it."""

    def prepare(enrolment: Any, device: str, key: str, token: str) -> None:
        named = hashlib.sha256(bytes.fromhex(token)).hexdigest()
        enrolment._db.execute(f"UPDATE invitations SET {column} = ? WHERE token = ?", [value, named])

    return prepare


def _forget_entry(membership: Any, payload: bytes) -> None:
    membership.entry = membership.card = None


def _whoever(membership: Any, payload: bytes) -> None:
    membership._device = msgspec.json.decode(payload)["to"]


def _seal_to(original: Any) -> Weak:
    return lambda recipient, data, info: data


def _open_with(original: Any) -> Weak:
    return lambda private, sealed, info: sealed


def _seal(original: Any) -> Weak:
    return lambda opener, key, index, data: data + bytes(TAG_BYTES)


def _unseal(original: Any) -> Weak:
    return lambda opener, key, index, sealed: sealed[:-TAG_BYTES]


def _no_orders(steering: Any, *others: Any) -> None:
    steering._db.execute("DELETE FROM operators")


def _nonce_of_ours(joining: Any, reply: Any) -> tuple[Any, ...]:
    return (joining, msgspec.structs.replace(reply, nonce=joining._join.nonce))


def _without_witness(original: Any) -> Weak:
    return lambda path: path.name != "enrolled" and original(path)


def _newest(log: Any, status: Any) -> None:
    log._statuses.pop(status.sender, None)
    log.db.execute("UPDATE devices SET seq = 0 WHERE device = ?", [status.sender])


class _Everybody(tuple[tuple[str, str], ...]):
    def __contains__(self, item: object) -> bool:
        return True


def _anybody(original: Any) -> Weak:
    return lambda members: Operators(_Everybody())


DEFENCES = {
    "signature": nothing("floe.signing:_verifies", result=True),
    "federation": Defence(_read(federation=False), ("floe.wire:Wire.read",)),
    "sender": Defence(_read(federation=True), ("floe.wire:Wire.read",)),
    "member": nothing("aggregator.members:Members.check_key"),
    "operator": nothing("aggregator.members:Members._check_operator"),
    "steersman": Defence(_anybody, ("aggregator.members:Members.operators",)),
    "status-order": prepared(_newest, "aggregator.log:Log.status"),
    "telemetry-order": nothing("aggregator.monitor:Monitor._newest", result=-1),
    "command-order": prepared(_no_orders, "aggregator.steering:Steering.handle"),
    "suite": Defence(_open, ("floe.keyring:EnrolledKeyring.open",)),
    "group-key": Defence(_renew, ("aggregator.entries:Entries.renew",)),
    "phase": Defence(_check_manifest, ("aggregator.receiver:check_manifest",)),
    "stale": nothing("aggregator.receiver:Receiver._takes", result=0),
    "patience": Defence(_announce, ("edge_client.download:Download.announce",)),
    "outcomes": nothing("aggregator.log:Log.outcome"),
    "one-answer": nothing("aggregator.receiver:has_answer", result=False),
    "chunks": Defence(_add, ("floe.parcel:Incoming.add",)),
    "aggregator": nothing("edge_client.membership:Membership.check_key"),
    "device-pin": nothing("aggregator.pins:Pins.check_key"),
    "pin": nothing("edge_client.memory:Memory.check_key"),
    "proof": nothing("floe.keyring:Keyring.proves", result=True),
    "order": nothing("edge_client.memory:Memory.newer", result=True),
    "reply": nothing("floe.asking:Asking._check_key"),
    "root": Defence(_read_delegation, ("floe.roster:read_delegation",)),
    "delegates": Defence(_read_head(member=True), ("edge_client.membership:read_head",)),
    "delegation-end": Defence(_read_head(member=False), ("edge_client.membership:read_head",)),
    "follows": nothing("edge_client.membership:check_follows"),
    "entry-order": prepared(_forget_entry, "edge_client.membership:Membership.on_entry"),
    "entry-recipient": prepared(_whoever, "edge_client.membership:Membership.on_entry"),
    "invitation-used": prepared(_row("used_by", ""), "aggregator.enrolment:Enrolment._invitation"),
    "invitation-time": prepared(_row("until", 2**40), "aggregator.enrolment:Enrolment._invitation"),
    "invitation-name": prepared(_row("device", ""), "aggregator.enrolment:Enrolment._invitation"),
    "one-request": nothing("aggregator.enrolment:_check_takes_over"),
    "number": nothing("floe.devices:_compare"),
    "join-sealing": Defence(_seal_to, ("floe.roster:seal_to",)),
    "join-opening": Defence(_open_with, ("floe.roster:open_with",)),
    "sealing": Defence(_seal, ("floe.seal:Sealer._seal",)),
    "opening": Defence(_unseal, ("floe.seal:Sealer._open",)),
    "nonce": prepared(_nonce_of_ours, "edge_client.joining:Joining._on_reply"),
    "witness": Defence(_without_witness, ("floe.anchor:present",)),
}


def off(name: str) -> bool:
    """Whether a defence is switched off now."""
    return Path(f"off-{name}").exists()


def install() -> None:
    """Put a switch at the place of each defence."""
    for name, defence in DEFENCES.items():
        for place in defence.places:
            module, _, path = place.partition(":")
            *outer, attribute = path.split(".")
            where = resolve_name(f"{module}:{'.'.join(outer)}" if outer else module)
            original = getattr(where, attribute)
            setattr(where, attribute, _switch(name, original, defence.weak(original)))


def _switch(name: str, original: Any, weak: Weak) -> Weak:
    return lambda *arguments, **named: (weak if off(name) else original)(*arguments, **named)


if __name__ == "__main__":
    install()
    cli.main()
