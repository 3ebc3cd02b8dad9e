"""`floe federation`: the root key, who the operators are, and the first roster. Writes key files, signs, publishes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from floe.anchor import read_anchor, write_anchor
from floe.asker import newest_delegation
from floe.cli import config_options, reply_option, to_aggregator
from floe.documents import ROOT, Aggregator, Delegation, Operator
from floe.errors import ConfigError, FloeError, KeyFileError, Refused
from floe.files import write_atomically
from floe.hpke import sealing_text
from floe.identity import Identity, load_identity, load_sealing_key, new_identity, present, read_identity
from floe.managing import Managing, managing
from floe.next_authority import finish_taking, next_authority, take_next_authority
from floe.operators import check_name, check_places
from floe.papers import HASHES
from floe.roster import Anchor, Roster, read_delegation
from floe.secure import carry, furnish, settle
from floe.service import only_one
from floe.settings import Config
from floe.sign_roster import Change, delegate, first_head, next_head, with_new_keys, with_next_epoch
from floe.signing import public_key

DAY_S = 86_400
ROOT_KEY = "root/root.pem"
_days = click.option(
    "--days", type=click.IntRange(1, 36500), default=365, show_default=True, metavar="N",
    help="how long the operators may sign; then the root key is needed again",
)  # fmt: skip
_root = click.option(
    "--root", "root_key", type=click.Path(path_type=Path), metavar="FILE", help=f"the root key (default: {ROOT_KEY})"
)


@click.group()
def federation() -> None:
    """A federation whose devices are enrolled: its root key, its operators, its roster."""


@federation.command()
@config_options(federation="federation.name", lineage="rounds.lineage", host="mqtt.host", login="mqtt.login")
@click.option("--operator", "name", default="operator", show_default=True, metavar="NAME", help="name of the operator")
@_days
def new(config: Config, name: str, days: int) -> None:
    """Make a root key, an operator, the aggregator's keys and the first roster; overwrites nothing.

    Run it where the aggregator will run. If it was interrupted, run it again.

    With --login certificates or passwords each member gets in at the broker as itself, over TLS: a small authority is
    made for that, and floe.toml where there is none (--host: the broker's address for all).
    """
    check_name(name)
    if name == config.rounds.lineage:
        raise ConfigError(f"--operator {name}: the lineage has this name; choose another")
    paths = _Paths(config)
    paths.check_fresh()
    config = settle(config)
    with only_one(paths.state, "aggregator"):
        delegation = _make(config, paths, name, days)
    click.echo(
        f"federation {config.federation.name!r} made; operator {name!r} may sign until {_date(delegation.until)}"
    )
    click.echo(f"  {paths.root}: the root key. TAKE IT AWAY: it is needed only to name operators again")
    click.echo(
        f"  {paths.operator}: the operator's key; with {paths.anchor.name} and {paths.delegation.name} it may move"
    )
    click.echo(f"  {paths.anchor}: public; every member has it")
    click.echo(f"  {paths.state}: the aggregator's keys and its first roster")
    if config.mqtt.tls:
        access = config.path(config.security.access)
        click.echo(f"  {access}: the authority, and what broker, aggregator and operator here log in with")
    click.echo("next: start the broker and `floe aggregator`, then `floe invite`")


@federation.command("delegate")
@config_options(federation="federation.name")
@click.argument("name", required=False)
@click.option("--key", metavar="KEY", help="public key of NAME, the second word of its line in operators.pub")
@click.option("--remove", multiple=True, metavar="NAME", help="an operator who shall be none any more")
@_days
@_root
def delegate_(
    config: Config, name: str | None, key: str | None, remove: Sequence[str], days: int, root_key: Path | None
) -> None:
    """Have the root say anew who the operators are: those of before, NAME, and none of --remove.

    Without --key, NAME is an operator already, or gets the key of operator.pem here.
    """
    if name is None and key is not None:
        raise ConfigError("--key: whose? name the operator")
    paths = _Paths(config)
    anchor = _anchor(config)
    private = root_key or paths.root
    if not present(private):
        raise KeyFileError(f"{private}: no root key here; bring it, or say with --root where it is")
    root = read_identity(private, ROOT)
    if root.key != anchor.root:
        raise KeyFileError(f"{private}: not the root key of {anchor.federation!r}, as {paths.anchor} has it")
    _, before = newest_delegation(config, anchor)
    operators = _operators(before, paths, name, key, remove)
    text = delegate(anchor, root, operators, before.seq + 1, int(time.time()) + days * DAY_S)
    write_atomically(paths.delegation, (text + "\n").encode())
    names = ", ".join(operator.name for operator in operators)
    click.echo(f"{paths.delegation} written: delegation {before.seq + 1}, {names}, until {_date_in(days)}")
    click.echo("next: `floe federation publish` tells the members; the operators' machines need a copy of this file")


@federation.command()
@to_aggregator
@reply_option
def publish(config: Config, reply_s: float) -> None:
    """Tell the members of the newest delegation, by a head of the roster that carries it."""
    with managing(config, reply_s) as held:
        text, delegation = newest_delegation(config, held.known.anchor)
        roster = held.newest()
        if roster.delegation.seq >= delegation.seq:
            click.echo(f"nothing to publish: version {roster.version} has delegation {roster.delegation.seq} already")
            return
        click.echo(f"delegation {delegation.seq} published, version {_publish(held, text, delegation).version}")


@federation.command()
@to_aggregator
@reply_option
def restored(config: Config, reply_s: float) -> None:
    """After the aggregator was restored from a backup: its chain goes on in a new epoch, which the members accept."""
    lineage = config.rounds.lineage
    with managing(config, reply_s) as held:
        held.catch_up()
        text, delegation = newest_delegation(config, held.known.anchor)
        roster = _publish(held, text, delegation, lambda roster: with_next_epoch(roster, lineage))
        epoch = roster.aggregator(lineage).epoch
        click.echo(f"{lineage!r} goes on in epoch {epoch}, version {roster.version} of the roster")


@federation.command()
@to_aggregator
@reply_option
def rotate(config: Config, reply_s: float) -> None:
    """Have the aggregator make other keys; its old key signs for them, and the members follow."""
    lineage = config.rounds.lineage
    with managing(config, reply_s) as held:
        text, delegation = newest_delegation(config, held.known.anchor)
        held.newest()
        members = held.ask("rotate", name=lineage).members
        try:
            if not members:
                raise Refused("malformed", "it offers none")
            roster = _publish(held, text, delegation, lambda roster: with_new_keys(roster, lineage, members[0]))
        except Refused as refusal:
            raise FloeError(f"the keys that aggregator {lineage!r} offers cannot be taken: {refusal.detail}") from None
        click.echo(f"{lineage!r} has other keys, version {roster.version} of the roster")


@federation.command()
@to_aggregator
@reply_option
def authority(config: Config, reply_s: float) -> None:
    """Put another authority in the place of the one that signs certificates here, and tell the members.

    Both count: devices that are away learn of it when they come back. Broker and aggregator follow within the hour.
    If it was interrupted, run it again: it goes on, with the same authority.
    """
    folder = config.path(config.security.access)
    with managing(config, reply_s) as held:
        roster = held.newest()
        held.check_may_sign(roster.delegation)
        if finish_taking(folder):
            click.echo(f"another authority, of which the members know already, is in its place in {folder}")
            return
        both = next_authority(folder, config.federation.name, time.time())

        def make() -> tuple[Roster, Change]:
            roster = held.newest()
            return roster, next_head(roster, held.operator, int(time.time()), ca=both)

        if roster.head.ca != both:
            roster = held.publish(make)
        take_next_authority(folder)
    click.echo(f"another authority, version {roster.version} of the roster")


@federation.command()
@config_options(host="mqtt.host", lineage="rounds.lineage")
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="written there, 0600")
@click.option("--name", "names", multiple=True, metavar="HOST", help="broker: a further name or address that it has")
def login(config: Config, name: str, to: Path, names: Sequence[str]) -> None:
    """Make what NAME (broker, operator.NAME, lineage.NAME) logs in with on another machine.

    It goes there into the folder `access` beside floe.toml ([security] access), over a safe way.
    """
    for path in carry(config, name, to, names, time.time()):
        click.echo(path)
    if config.mqtt.login == "passwords" and name != "broker":
        hashes = config.path(config.security.access) / HASHES
        click.echo(f"a broker on another machine needs {hashes} again, too", err=True)


def _make(config: Config, paths: _Paths, name: str, days: int) -> Delegation:
    """The files of a new federation, the head last: with it all is there."""
    now, lineage = int(time.time()), config.rounds.lineage
    root = load_identity(paths.root.parent, paths.root.stem)
    anchor = Anchor(config.federation.name, root.key)
    write_anchor(paths.anchor, anchor)
    private = read_identity(paths.operator, name) if present(paths.operator) else new_identity(paths.operator, name)
    text, delegation = paths.delegation_of(anchor, root, private, now + days * DAY_S)
    signing = load_identity(paths.state / "keys", lineage)
    sealing = sealing_text(load_sealing_key(paths.state / "keys", lineage).public_key())
    aggregator = Aggregator(lineage, signing.key, sealing, 1)
    ca = furnish(config, name, now)
    write_atomically(paths.head, first_head(anchor, private, aggregator, text, now, ca).encode())
    return delegation


def _publish(
    held: Managing, text: str, delegation: Delegation,
    change: Callable[[Roster], tuple[Aggregator, ...]] = lambda roster: (),
) -> Roster:  # fmt: skip
    def make() -> tuple[Roster, Change]:
        roster = held.newest()
        newer = delegation.seq > roster.delegation.seq
        held.check_may_sign(delegation if newer else roster.delegation)
        now, carried = int(time.time()), text if newer else ""
        return roster, next_head(roster, held.operator, now, delegation=carried, aggregators=change(roster))

    return held.publish(make)


class _Paths:
    """Where the files of a federation are."""

    def __init__(self, config: Config) -> None:
        security, self._lineage = config.security, config.rounds.lineage
        self.root = config.path(ROOT_KEY)
        self.anchor = config.path(security.federation)
        self.operator = config.path(security.operator_key)
        self.delegation = config.path(security.delegation)
        self.state = config.path(config.paths.state) / f"aggregator-{self._lineage}"
        self.head = self.state / "head"
        self._log = config.path(config.paths.log)
        check_places(self.operator, config.path(security.operators))

    def check_fresh(self) -> None:
        """That nothing is here, or what an interrupted `new` has left. Raises `KeyFileError`."""
        if present(self.head):
            raise KeyFileError(
                f"{self.head}: this federation has been made already; its operators are named anew with `floe "
                "federation delegate`"
            )
        if present(self.root):
            return  # ours, interrupted: what is there is kept, what is missing is made
        there = read_anchor(self.anchor)
        if there is not None:
            raise KeyFileError(
                f"{self.anchor}: this folder belongs to federation {there.federation!r}; use another folder"
            )
        keys = self.state / "keys" / f"{self._lineage}.pem"
        for used in (keys, self.state / "enrolled", self._log / "floe.sqlite"):
            if present(used):
                raise KeyFileError(
                    f"{used}: an aggregator has run here without enrolment, and its devices trust it by pins: begin "
                    "in a new folder, or move the folders of [paths] state, models and log away, here and at the "
                    "devices ([rounds] initial can begin with the last global model)"
                )
        if present(self.delegation):
            raise KeyFileError(f"{self.delegation}: is there, but no {self.anchor}: move it away")

    def delegation_of(self, anchor: Anchor, root: Identity, operator: Identity, until: int) -> tuple[str, Delegation]:
        """The first delegation: as an interrupted run left it, or a fresh one."""
        if not present(self.delegation):
            text = delegate(anchor, root, [Operator(operator.name, operator.key)], 1, until)
            write_atomically(self.delegation, (text + "\n").encode())
        try:
            text = self.delegation.read_text(encoding="utf-8").strip()
            delegation = read_delegation(text, anchor)
        except (OSError, UnicodeDecodeError, Refused) as error:
            raise KeyFileError(f"{self.delegation}: not a delegation by this root ({error}); move it away") from None
        if Operator(operator.name, operator.key) not in delegation.operators:
            names = ", ".join(found.name for found in delegation.operators)
            raise KeyFileError(
                f"{self.delegation}: names {names}, not {operator.name!r} with the key of {self.operator}: give "
                "--operator as before, or move it away"
            )
        return text, delegation


def _anchor(config: Config) -> Anchor:
    path = config.path(config.security.federation)
    anchor = read_anchor(path)
    if anchor is None:
        raise KeyFileError(f"{path}: missing; bring it (any member has it), or begin with `floe federation new`")
    return anchor


def _operators(
    before: Delegation, paths: _Paths, name: str | None, key: str | None, remove: Sequence[str]
) -> list[Operator]:
    known = {operator.name: operator.key for operator in before.operators}
    for removed in remove:
        if removed not in known:
            raise ConfigError(f"--remove {removed}: no operator; delegation {before.seq} names {', '.join(known)}")
        if removed != name:
            del known[removed]
    if name is not None:
        check_name(name)
        if key is None and name not in known:
            if not present(paths.operator):
                raise ConfigError(f"{name}: with which key? --key KEY, from its line in operators.pub")
            key = read_identity(paths.operator, name).key
        if key is not None:
            try:
                public_key(key)
            except Refused as refusal:
                raise ConfigError(f"--key {key[:60]}: not a public key ({refusal.detail})") from None
            known[name] = key
    if not known:
        raise ConfigError("nobody would be left: name an operator to stay")
    return [Operator(*one) for one in known.items()]


def _date(moment: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))


def _date_in(days: int) -> str:
    return _date(int(time.time()) + days * DAY_S)
