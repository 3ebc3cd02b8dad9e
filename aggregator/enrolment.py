"""Who asks to join, and what operators order: requests and invitations in the log, answers as fields of messages.

A request takes no part in anything: it waits, visible, until an operator has compared its number and signed a card.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from aggregator.log import Log
from aggregator.members import SPENT, Members
from floe.documents import PAGE, Card, Join, JoinRequest, Keys, Member, RosterCommand
from floe.errors import Refused
from floe.identity import Identity
from floe.keyring import EnrolledKeyring
from floe.own_keys import load_next
from floe.roster import check_endorsed, endorsement_bytes, number, open_join, read_card, short_hash_of_card
from floe.store import durably, now

MOST_INVITATIONS = 10_000  # that are open at the same time


class Enrolment:
    """The requests and invitations of one lineage. Raises `sqlite3.Error` when the disk refuses."""

    def __init__(
        self, log: Log, members: Members, keyring: EnrolledKeyring, identity: Identity, state: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._log = log
        self._db = log.db
        self._members = members
        self._keyring = keyring
        self._identity = identity
        self._lineage = identity.name
        self._state = state
        self._clock = clock

    def request(self, request: JoinRequest) -> dict[str, Any]:
        """A device asks: the fields of the `JoinReply`. On disk when this returns. Raises `Refused` where it cannot be
        answered.
        """
        if request.to != self._lineage:
            raise Refused("not-for-us", f"a request to {request.to!r}")
        self._members.check_complete()
        join = open_join(request, self._keyring.private)
        fields: dict[str, Any] = {"to": request.sender, "to_key": request.key, "nonce": join.nonce, "challenge": ""}
        fields["version"] = self._members.roster.version
        try:
            state, challenge = self._place(request, join)
            return fields | {"state": state, "challenge": challenge}
        except Refused as refusal:
            self._log.refused(request.sender, refusal.reason)
            text = f"{request.sender}: asks to join, and is refused: {refusal.detail}"
            self._log.event("warning", "join", text, device=request.sender, reason=refusal.reason)
            return fields | {"state": "refused", "detail": refusal.detail[:500]}

    def rejection(self, device: str) -> dict[str, Any] | None:
        """The fields of the `JoinReply` to a device whose request was rejected."""
        sql = "SELECT nonce, keys FROM requests WHERE device = ? AND state = 'rejected'"
        row = self._db.execute(sql, [device]).fetchone()
        if row is None:
            return None
        key = msgspec.json.decode(row[1], type=Keys).signing
        version = self._members.roster.version
        return {"to": device, "to_key": key, "nonce": row[0], "challenge": "", "state": "rejected", "version": version}

    def command(self, command: RosterCommand) -> tuple[dict[str, Any], Card | None]:
        """An operator's order, whose name and key have been checked: fields of the reply, and the card that it changed.

        Raises `Refused` where it is not followed.
        """
        match command.action:
            case "list":
                found = self._listed(command.name)
                return {"detail": "", "members": tuple(found[:PAGE]), "more": len(found) > PAGE}, None
            case "show":
                return self._shown(command.name), None
            case "invite":
                return {"detail": self._invite(command)}, None
            case "change":
                card = self._members.change(command.head, command.card)
                what = f"{card.member}: {card.state}" if card else "a new head"
                return {"detail": f"{what}, version {self._members.roster.version}"}, card
            case "reject":
                return {"detail": self._reject(command.name, command.request)}, None
            case "rotate" if command.name == self._lineage:
                return {"detail": "", "members": (self._next_keys(),)}, None
            case "rotate":
                return {"detail": self._rotates(command.name, command.request)}, None

    def _place(self, request: JoinRequest, join: Join) -> tuple[str, str]:
        device, text = request.sender, self._members.card(request.sender)
        card = read_card(text, self._members.anchor) if text else None
        if card is not None and card.state == "approved" and card.keys == join.keys:
            return "approved", ""
        if join.endorsement:
            if card is None or card.state != "approved":
                raise Refused("not-enrolled", f"{device!r} has no card whose key could endorse another")
            check_endorsed(join.endorsement, card.keys.signing, request.federation, device, join.keys)
        sql = "SELECT nonce, keys, challenge, state, endorsement FROM requests WHERE device = ?"
        before = self._db.execute(sql, [device]).fetchone()
        nonce, keys, challenge, state, endorsement = before or ("", "null", "", "", "")
        had = msgspec.json.decode(keys, type=Keys | None)
        if had is not None and (nonce, had) == (join.nonce, join.keys):
            return str(state), str(challenge)
        token = "" if join.endorsement else self._invitation(device, request.key, join.token)
        if had is None or state != "pending":
            return "pending", self._record(request, join, token, secrets.token_hex(16))
        _check_takes_over(device, request.key == had.signing, bool(endorsement), bool(join.endorsement))
        return "pending", self._record(request, join, token, str(challenge))

    def _invitation(self, device: str, key: str, token: str) -> str:
        """The invitation that a request uses up. Raises `Refused("not-enrolled")`."""
        named = hashlib.sha256(bytes.fromhex(token)).hexdigest()
        row = self._db.execute("SELECT device, until, used_by FROM invitations WHERE token = ?", [named]).fetchone()
        if row is None:
            raise Refused("not-enrolled", "there is no such invitation here: ask for a new one (`floe invite`)")
        invited, until, used_by = row
        if used_by == SPENT:
            raise Refused(
                "not-enrolled", "this invitation has been decided upon already: ask for a new one (`floe invite`)"
            )
        if used_by and used_by != key:
            raise Refused(
                "not-enrolled",
                "this invitation has been used by somebody else; if that was not you, tell the operator: "
                "`floe devices list` shows who it was. Ask for a new one",
            )
        if until < self._clock():
            raise Refused("not-enrolled", "this invitation has expired: ask for a new one (`floe invite`)")
        if invited and invited != device:
            raise Refused("not-enrolled", f"this invitation is for device {invited!r}: join with --id {invited}")
        return named

    def _record(self, request: JoinRequest, join: Join, token: str, challenge: str) -> str:
        row = {
            "device": request.sender, "nonce": join.nonce, "keys": msgspec.json.encode(join.keys).decode(),
            "challenge": challenge, "endorsement": join.endorsement, "state": "pending", "time": int(self._clock()),
        }  # fmt: skip
        with durably(self._db):
            self._db.table("requests").upsert(row, pk="device")
            if token:
                used = (request.key, request.sender, token)
                self._db.execute("UPDATE invitations SET used_by = ?, device = ? WHERE token = ?", used)
            if not self._members.card(request.sender):
                self._log.enrolled(request.sender, request.key, "unverified")
        compare = f"number {number(request, join, challenge)}"
        text = f"{request.sender}: asks {'for other keys' if join.endorsement else f'to join, {compare}'}"
        self._log.event("info", "join", text, device=request.sender)
        return challenge

    def _listed(self, after: str) -> list[Member]:
        """One page of names and one more, those who ask beside those who have a card."""
        rows = self._db.execute(_NAMES, [after, after, PAGE + 1]).fetchall()
        return [self._members_of(name)[0] for (name,) in rows]

    def _members_of(self, name: str) -> list[Member]:
        """Whoever has this name: the request that is open, then the card, then a request that was rejected."""
        found = []
        sql = "SELECT state, keys, time, nonce, challenge, endorsement FROM requests WHERE device = ?"
        if row := self._db.execute(sql, [name]).fetchone():
            state, keys, asked_at, nonce, challenge, endorsement = row
            shown = "rotating" if state == "pending" and endorsement else state
            fields = {"name": name, "state": shown, "keys": msgspec.json.decode(keys), "time": asked_at, "nonce": nonce}
            found.append(msgspec.convert(fields | {"challenge": challenge, "endorsement": endorsement}, Member))
        if text := self._members.card(name):
            card = read_card(text, self._members.anchor)
            member = Member(name=name, state=card.state, keys=card.keys, time=0, version=card.seq)
            found.insert(0 if row and row[0] == "rejected" else len(found), member)
        return found

    def _shown(self, name: str) -> dict[str, Any]:
        found = tuple(self._members_of(name))
        fields = {"members": found, "card": self._members.card(name), "place": self._members.place(name)}
        return fields | {"detail": "" if found else f"nobody here is, or asked to be, {name!r}"}

    def _invite(self, command: RosterCommand) -> str:
        if not command.token or command.until <= self._clock():
            raise Refused("malformed", "an invitation needs a token, and a time that is not over")
        (open_,) = self._db.execute("SELECT count(*) FROM invitations WHERE until >= ?", [self._clock()]).fetchone()
        if open_ >= MOST_INVITATIONS:
            raise Refused("malformed", f"{open_} invitations are open already: wait until some have expired")
        row = {"token": command.token, "device": command.name, "until": command.until, "operator": command.sender}
        with durably(self._db):
            self._db.execute("DELETE FROM invitations WHERE until < ?", [self._clock()])
            self._db.table("invitations").insert(row | {"used_by": "", "made_at": now()}, pk="token", ignore=True)
        return f"invited: {command.name or 'any device'}"

    def _reject(self, name: str, nonce: str) -> str:
        with durably(self._db):
            sql = "SELECT keys FROM requests WHERE device = ? AND nonce = ?"
            row = self._db.execute(sql, [name, nonce]).fetchone()
            if row:
                self._db.execute("UPDATE requests SET state = 'rejected' WHERE device = ?", [name])
                self._db.execute("UPDATE roster SET rotate = 0 WHERE device = ?", [name])
                key = msgspec.json.decode(row[0], type=Keys).signing
                self._db.execute("UPDATE invitations SET used_by = ? WHERE used_by = ?", [SPENT, key])
            if row and not self._members.card(name):
                self._db.execute("UPDATE devices SET state = 'rejected' WHERE device = ?", [name])
        if not row:
            raise Refused("not-enrolled", f"{name!r} has not asked, or has asked again since: list them again")
        return f"{name}: rejected"

    def _next_keys(self) -> Member:
        """Our own other keys, under the endorsement of those in use: they are taken when a head names them."""
        keys = load_next(self._state, self._lineage).public((self._keyring.suite,))
        endorsement = self._identity.sign_bytes(endorsement_bytes(self._members.anchor.federation, self._lineage, keys))
        moment = int(self._clock())
        return Member(name=self._lineage, state="rotating", keys=keys, time=moment, endorsement=endorsement)

    def _rotates(self, name: str, card: str) -> str:
        self._members.check_complete()
        text = self._members.card(name)
        if not text or read_card(text, self._members.anchor).state != "approved":
            raise Refused("not-enrolled", f"{name!r} is not an approved device")
        if card != short_hash_of_card(text):  # or an order that is played again would count for ever
            raise Refused("roster", f"{name!r} has another card than the one whose keys are to change")
        with durably(self._db):
            self._db.execute("UPDATE roster SET rotate = 1 WHERE device = ?", [name])
        return f"{name}: asked for other keys"


def _check_takes_over(device: str, same_key: bool, was_rotation: bool, is_rotation: bool) -> None:
    """That a request may stand in the place of the one that waits: only a rotation, of the same key (a device that
    began again), where no number is compared. Else whoever has a token could draw numbers until one fits.
    """
    if same_key and was_rotation and is_rotation:
        return
    who = "this device has asked already, otherwise than now" if same_key else "another key has asked under this name"
    raise Refused(
        "not-enrolled",
        f"{who}, and waits: an operator decides upon that first (`floe devices show {device}`; `floe devices reject "
        f"{device}` frees the name, then a new code)",
    )


_NAMES = """
SELECT device FROM roster WHERE device > ? UNION SELECT device FROM requests WHERE device > ? ORDER BY device LIMIT ?
"""
