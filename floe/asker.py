"""Who gives the commands on this machine: an operator, and the newest roster that was seen here. Two small files.

Without enrolment `operators.pub` names the operator; with it the root's delegation does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from floe.anchor import load_anchor, read_anchor
from floe.documents import Delegation
from floe.errors import KeyFileError, Refused, StoreError
from floe.files import storing, write_atomically
from floe.identity import Identity, present, read_identity
from floe.operators import check_places, load_operator
from floe.roster import Anchor, Roster, check_follows, read_delegation, read_head
from floe.settings import Config

DELEGATE = "`floe federation delegate NAME --key KEY`, with the root key"


class KnownRoster:
    """The newest head of the roster that was seen here, over restarts: an older one is refused."""

    def __init__(self, path: Path, anchor: Anchor) -> None:
        self.anchor = anchor
        self._path = path
        self.roster = read_kept(path, anchor)

    def take(self, text: str) -> Roster:
        """A head that came; the newest then. On disk when this returns. Raises `Refused`, `StoreError`."""
        if self.roster is None or text != self.roster.text:
            roster = read_head(text, self.anchor)
            if self.roster is not None:
                check_follows(roster, self.roster)
            write_atomically(self._path, text.encode())
            self.roster = roster
        return self.roster


@dataclass(frozen=True)
class Asker:
    """An operator on this machine: its key and name, its state folder, and what it knows of the roster.

    `known` is None without enrolment. `delegation` is the text of the newest one here, in a head or in its file.
    """

    identity: Identity
    state: Path
    known: KnownRoster | None
    delegation: str = ""


def load_asker(config: Config) -> Asker:
    """The operator whose key lies here. Raises `KeyFileError` where the key, or who it belongs to, is missing."""
    security, folder = config.security, config.path(config.paths.state)
    private = config.path(security.operator_key)
    anchor = anchor_here(config)
    if anchor is None:
        operator = load_operator(private, config.path(security.operators))
        return Asker(operator, folder / f"operator-{operator.name}", None)
    check_places(private, config.path(security.operators))
    if not present(private):
        raise KeyFileError(
            f"{private}: no operator's key here, so nothing can be signed; `floe key operator NAME` makes one, and "
            f"{DELEGATE}, makes it count"
        )
    identity = read_identity(private, private.stem)
    text, delegation = newest_delegation(config, anchor)
    name = next((found.name for found in delegation.operators if found.key == identity.key), "")
    if not name:
        names = ", ".join(found.name for found in delegation.operators)
        raise KeyFileError(
            f"{private}: its public key {identity.key} is none of delegation {delegation.seq}, which names {names}; "
            f"{DELEGATE}, adds it"
        )
    state = folder / f"operator-{name}"
    return Asker(replace(identity, name=name), state, KnownRoster(state / "head", anchor), text)


def anchor_here(config: Config) -> Anchor | None:
    """The federation whose devices are enrolled, None without enrolment. Raises `KeyFileError`."""
    anchor = read_anchor(config.path(config.security.federation))
    if anchor is None:
        for witness in sorted(config.path(config.paths.state).glob("operator-*/enrolled")):
            load_anchor(config, witness.parent)  # raises: federation.pub was here
    return anchor


def newest_delegation(config: Config, anchor: Anchor) -> tuple[str, Delegation]:
    """The delegation with the highest serial here, in its file or in a head that an operator or aggregator has seen.

    Raises `KeyFileError` where there is none, or one that is not of this root.
    """
    path = config.path(config.security.delegation)
    found = []
    if present(path):
        try:
            text = path.read_text(encoding="utf-8").strip()
            found.append((text, read_delegation(text, anchor)))
        except (OSError, UnicodeDecodeError, Refused) as error:
            fault = error.detail if isinstance(error, Refused) else getattr(error, "strerror", None) or "not UTF-8"
            raise KeyFileError(
                f"{path}: not a delegation by the root of {anchor.federation!r}: {fault}; restore it, or "
                "move it away: `floe federation delegate`, with the root key, makes another"
            ) from None
    folder = config.path(config.paths.state)
    for kept in sorted(folder.glob("operator-*/head")) + sorted(folder.glob("aggregator-*/head")):
        if (roster := read_kept(kept, anchor)) is not None:
            found.append((roster.head.delegation, roster.delegation))
    if not found:
        raise KeyFileError(
            f"{path}: missing: it says who the operators are ([security] delegation). Bring it from where "
            "`floe federation new` or `delegate` was run"
        )
    return max(found, key=lambda one: one[1].seq)


def check_open(delegation: Delegation, now: float) -> None:
    """That a delegation has not ended by this machine's clock. Raises `KeyFileError`."""
    if delegation.until < now:
        ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(delegation.until))
        raise KeyFileError(
            f"delegation {delegation.seq} ended at {ended}, and nothing can be signed under it: `floe federation "
            "delegate NAME` makes a new one, with the root key, then `floe federation publish`. Is this clock right?"
        )


def read_kept(path: Path, anchor: Anchor) -> Roster | None:
    """A head that is kept in a file, None where there is none. Raises `StoreError`."""
    with storing(path):
        if not present(path):
            return None
        try:
            return read_head(path.read_text(encoding="utf-8").strip(), anchor)
        except (UnicodeDecodeError, Refused) as error:
            raise StoreError(
                f"{path}: not a head of this federation's roster ({error}); restore it, or remove it: it is fetched "
                "again"
            ) from None
