"""`floe devices`: an operator sees who asks to be let in, lets them in, turns them out, has their keys changed."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence

import click
import msgspec

from floe.cli import Numbers, reply_option, to_aggregator
from floe.documents import Member
from floe.errors import ConfigError, FloeError, Refused
from floe.managing import REQUESTS, Managing, Shown, managing
from floe.roster import short_hash_of_card
from floe.settings import Config
from floe.sign_roster import Change, approve, check_rotation, number, revoke
from floe.terminal import printable
from floe.topics import NAME

POLL_S = 1.0
COLUMNS = ("NAME", "STATE", "VERSION", "SINCE", "FINGERPRINT", "NUMBER")


@click.group()
def devices() -> None:
    """Who belongs to the federation: list, approve, reject, revoke, rotate. Signed with the operator's key."""


_wait = click.option(
    "--wait", "wait_s", type=Numbers(0, 86400), default=0.0, metavar="S",
    help="wait up to S seconds for the request",
)  # fmt: skip
_names = click.argument("names", nargs=-1, metavar="NAME...")


@devices.command("list")
@to_aggregator
@reply_option
@click.option("--json", "as_json", is_flag=True, help="one JSON object a device")
def list_(config: Config, reply_s: float, as_json: bool) -> None:
    """All devices and requests, with the numbers to compare."""
    with managing(config, reply_s) as held:
        members = [row for member in held.list() for row in _rows(held, member)]
        _print(held.federation, members, as_json=as_json)
        if not members and not as_json:
            click.echo("no devices yet: `floe invite` makes a code, with which one can ask", err=True)


@devices.command()
@to_aggregator
@reply_option
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="JSON")
def show(config: Config, name: str, reply_s: float, as_json: bool) -> None:
    """One device: its request, if it has one open, and its place in the roster."""
    _checked([name])
    with managing(config, reply_s) as held:
        shown = held.show(name)
        if not shown.rows:
            raise FloeError(f"no device {name!r} has asked or been let in; `floe devices list` shows all")
        _print(held.federation, shown.rows, as_json=as_json)


@devices.command("approve")
@to_aggregator
@reply_option
@_wait
@_names
@click.option("--number", "given", metavar="N", help="the number that the device shows: refused if it is not the same")
@click.option("--yes", is_flag=True, help="do not ask: for scripts, where the way to the device is trusted")
@click.option("--all-pending", is_flag=True, help="everybody who asks to be let in; but nobody who asks for other keys")
def approve_(
    config: Config, names: Sequence[str], given: str | None, yes: bool, all_pending: bool, wait_s: float, reply_s: float
) -> None:
    """Let devices in, after their numbers were compared.

    Who asks for other keys (`rotating`) is approved by its name only: was it you who asked for them?
    """
    if bool(names) == all_pending:
        raise ConfigError("name the devices to approve, or give --all-pending; `floe devices list` shows who asks")
    if given is not None and len(names) != 1:
        raise ConfigError("--number belongs to one device: name that one alone")
    _checked(names)
    wanted = None if given is None else "".join(given.split())
    with managing(config, reply_s) as held:
        for name in names:
            _approve(held, name, _asked_for(held, name, wait_s), wanted, yes=yes)
        for name in _pending(held, wait_s) if all_pending else ():
            shown = held.show(name)
            if shown.request is not None and shown.request.state == "pending":
                _approve(held, name, shown, wanted, yes=yes)


@devices.command()
@to_aggregator
@reply_option
@_names
def reject(config: Config, names: Sequence[str], reply_s: float) -> None:
    """Turn requests down; the device is told."""
    _some(names)
    with managing(config, reply_s) as held:
        for name in names:
            request = held.show(name).request
            if request is None:
                raise FloeError(f"{name!r} has no open request; to turn out a member: `floe devices revoke {name}`")
            held.ask("reject", name=name, request=request.nonce)
            click.echo(f"{name} rejected")


@devices.command("revoke")
@to_aggregator
@reply_option
@_names
def revoke_(config: Config, names: Sequence[str], reply_s: float) -> None:
    """Turn members out: nothing of theirs counts any more, and models have another key."""
    _some(names)
    with managing(config, reply_s) as held:
        for name in names:
            shown = held.show(name)
            if shown.place.card is None:
                raise FloeError(
                    f"no member {name!r}" + (": `floe devices reject` turns its request down" if shown.request else "")
                )
            if shown.place.card.state == "revoked":
                click.echo(f"{name} is revoked already, since version {shown.place.card.seq}")
                continue
            version = held.change(
                name, shown, lambda now: revoke(now.roster, held.operator, now.place, _clock())
            ).version
            click.echo(f"{name} revoked, version {version} of the roster")


@devices.command()
@to_aggregator
@reply_option
@_wait
@_names
def rotate(config: Config, names: Sequence[str], wait_s: float, reply_s: float) -> None:
    """Have devices make other keys, and let those in: the old key vouches for the new one.

    Not after a theft: who has the old key vouches for its own. Then revoke the device, and invite it anew.
    """
    _some(names)
    with managing(config, reply_s) as held:
        for name in names:
            shown = held.show(name)
            if shown.request is not None and wait_s:
                raise FloeError(
                    f"{name!r} has a request open already ({shown.request.state}), which this command has not asked "
                    f"for: `floe devices approve {name}` if you know it, otherwise `floe devices reject {name}`"
                )
            card = shown.place.card
            if card is None or card.state != "approved":
                raise FloeError(
                    f"{name!r} is not approved, so it has no keys to change; `floe invite` lets it ask anew"
                )
            held.ask("rotate", name=name, request=short_hash_of_card(shown.place.text))
        click.echo("asked for other keys: " + ", ".join(names))
        if wait_s:
            for name in names:
                _approve(held, name, _asked_for(held, name, wait_s), None, yes=False)
        else:
            click.echo(f"when they are made: floe devices approve {' '.join(names)}")


def fingerprint(key: str) -> str:
    """16 hexadecimal digits of a public key: of the SHA-256 of its text."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _rows(held: Managing, member: Member) -> Sequence[Member]:
    """The card of a name, and the open request: beside a request, `list` has no card."""
    return held.show(member.name).rows[::-1] if member.state in REQUESTS else (member,)


def _some(names: Sequence[str]) -> None:
    if not names:
        raise ConfigError("name one device or more; `floe devices list` shows them")
    _checked(names)


def _checked(names: Sequence[str]) -> None:
    for name in names:
        if not re.fullmatch(NAME, name):
            raise ConfigError(f"{name!r}: no name of a device, which is [a-z0-9_-]{{1,64}}")


def _pending(held: Managing, wait_s: float) -> list[str]:
    until = time.monotonic() + wait_s
    while True:
        asking = [member for member in held.list() if member.state in REQUESTS]
        names = [member.name for member in asking if member.state == "pending"]
        if names or time.monotonic() >= until:
            break
        held.rest(POLL_S)
    for member in asking:
        if member.state == "rotating":
            click.echo(
                f"{member.name} asks for other keys: `floe devices approve {member.name}` if an operator has asked for "
                f"them, otherwise `floe devices reject {member.name}`",
                err=True,
            )
    if not names:
        click.echo("nobody asks to be let in", err=True)
    return names


def _asked_for(held: Managing, name: str, wait_s: float) -> Shown | None:
    """The device once it has a request open; None: it is a member already, and asks for nothing."""
    until = time.monotonic() + wait_s
    while True:
        shown = held.show(name)
        if shown.request is not None:
            return shown
        if time.monotonic() >= until:
            break
        held.rest(min(POLL_S, max(until - time.monotonic(), 0.05)))
    if shown.place.card is not None and shown.place.card.state == "approved" and not wait_s:
        return None
    within = f" within {wait_s:g} s" if wait_s else ""
    raise FloeError(f"{name!r} has not asked{within}: run `floe join` there, with a code of `floe invite`")


def _approve(held: Managing, name: str, shown: Shown | None, wanted: str | None, *, yes: bool) -> None:
    if shown is None or shown.request is None:
        click.echo(f"{name} is approved already")
        return
    asked = shown.request
    if asked.state == "pending":
        _compare(name, shown, number(held.federation, asked), wanted, yes=yes)

    def make(now: Shown) -> Change:
        if now.request is None or _what_counts(now.request) != _what_counts(asked):
            raise FloeError(f"{name!r} does not ask for the same any more: look again with `floe devices show {name}`")
        try:
            if asked.state == "rotating":
                check_rotation(asked, now.place, held.federation)
            return approve(now.roster, held.operator, now.place, asked.keys, _clock())
        except Refused as refusal:
            raise FloeError(f"{name!r} is not approved: {printable(refusal.detail)}") from None

    card = shown.place.card
    replaces = card is not None and card.state == "approved" and asked.state == "pending" and card.keys != asked.keys
    version = held.change(name, shown, make).version
    what = "approved" if asked.state == "pending" else "approved with its new keys"
    place = ", in the place of the device that had this name" if replaces else ""
    click.echo(f"{name} {what}{place}, version {version} of the roster")


def _clock() -> int:
    return int(time.time())


def _what_counts(request: Member) -> tuple[object, ...]:
    return (request.state, request.keys, request.nonce, request.challenge)


def _compare(name: str, shown: Shown, digits: str, wanted: str | None, *, yes: bool) -> None:
    spaced = f"{digits[:3]} {digits[3:]}"
    if (card := shown.place.card) is not None:
        place = ": this would take the place of the device that has the name" if card.state == "approved" else ""
        click.echo(f"{name}: has a card of version {card.seq}, {card.state}{place}", err=True)
    if wanted is not None:
        if wanted != digits:
            raise FloeError(
                f"{name!r} is not approved: its number is {spaced}, not {wanted}. Somebody else may ask in its place: "
                f"`floe devices reject {name}`, and a new code"
            )
        return
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{name}: its number is {spaced}; compare it, then --number {digits} (or --yes) approves it")
    if not click.confirm(f"{name}: does the device show {spaced}?", default=False, err=True):
        raise FloeError(f"{name!r} is not approved; if the device shows another number: `floe devices reject {name}`")


def _print(federation: str, members: Sequence[Member], *, as_json: bool) -> None:
    if as_json:
        for member in members:
            about = msgspec.to_builtins(member)
            extra = {"fingerprint": fingerprint(member.keys.signing), "number": _number(federation, member)}
            click.echo(json.dumps(about | extra))
        return
    rows = [COLUMNS, *(_row(federation, member) for member in members)] if members else []
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))] if rows else []
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(federation: str, member: Member) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(member.time)) if member.time else ""
    digits = _number(federation, member)
    shown = f"{digits[:3]} {digits[3:]}" if digits else ""
    return (member.name, member.state, str(member.version or ""), since, fingerprint(member.keys.signing), shown)


def _number(federation: str, member: Member) -> str:
    return number(federation, member) if member.state == "pending" else ""
