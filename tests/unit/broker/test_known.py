"""The roster as the broker knows it: only what is verified and complete counts, also after a restart."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.known import Known
from broker.members import Member
from floe import merkle
from floe.documents import Aggregator, Entry, Keys, Operator
from floe.errors import Refused, StoreError
from floe.identity import Identity
from floe.logins import hash_of
from floe.roster import Anchor, Roster, hash_of_card, read_card, read_head
from floe.sign_roster import Place, approve, delegate, first_head, revoke

NOW = 1_800_000_000
HASH = hash_of("a password")


def identity(name: str, seed: int) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


ROOT, OPA, MAIN, EVE = (identity(name, seed) for name, seed in (("root", 1), ("opa", 2), ("main", 3), ("main", 4)))
ANCHOR = Anchor("floe", ROOT.key)
DELEGATION = delegate(ANCHOR, ROOT, [Operator("opa", OPA.key)], 1, NOW + 1000)
SEALING = "A" * 43


class Roll:
    """A roster that operators change: its head, and its cards."""

    def __init__(self) -> None:
        main = Aggregator("main", MAIN.key, SEALING, 1)
        self.roster = read_head(first_head(ANCHOR, OPA, main, DELEGATION, NOW), ANCHOR)
        self.cards: dict[str, str] = {}

    def change(self, name: str, state: str = "approved", login: str = "") -> None:
        cards = {known: hash_of_card(text) for known, text in self.cards.items()}
        text = self.cards.get(name, "")
        place = Place(name, text, read_card(text, ANCHOR) if text else None, merkle.prove(cards, name))
        keys = Keys(identity(name, 9).key, SEALING, ("aes-256-gcm",), login)
        made = (
            approve(self.roster, OPA, place, keys, NOW) if state == "approved" else revoke(self.roster, OPA, place, NOW)
        )
        self.roster, self.cards[name] = read_head(made.head, ANCHOR), made.card

    def entry(self, name: str, by: Identity = MAIN, sender: str = "main", federation: str = "floe") -> bytes:
        return by.sign(
            Entry(federation=federation, sender=sender, seq=1, key=by.key, proof="", to=name, card=self.cards[name],
                  group=1, group_key="")
        )  # fmt: skip


@pytest.fixture
def roll() -> Roll:
    found = Roll()
    found.change("ann", login=HASH)
    found.change("bob")
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "roster.json"


def names(known: Known) -> list[str]:
    return [member.name for member in known.members("main", {}, passwords=True).devices]


def tell(known: Known, roll: Roll, *devices: str) -> bool:
    known.on_head(roll.roster.text)
    for device in devices:
        known.on_entry(roll.entry(device), "main")
    return known.settle()


def test_before_the_first_head_the_fixed_logins_that_are_here_get_in(path: Path) -> None:
    own = {"operator.opa": HASH, "broker": HASH, "lineage.two": ""}
    members = Known(path, ANCHOR).members("main", own, passwords=True)
    assert members.devices == ()
    assert members.lineages == (Member("main"), Member("two"))
    assert (members.operators, members.broker) == ((Member("opa", HASH),), HASH)


def test_a_roster_counts_when_its_last_card_is_here_and_survives_a_restart(path: Path, roll: Roll) -> None:
    known = Known(path, ANCHOR)
    assert not tell(known, roll, "ann")
    assert names(known) == []
    assert "counts 2 cards, and 1 are here" in known.missing()
    assert tell(known, roll, "bob")
    assert (names(known), known.missing()) == (["ann", "bob"], "")
    assert not known.settle(), "nothing new"
    again = Known(path, ANCHOR)
    assert names(again) == ["ann", "bob"]
    assert isinstance(again.roster, Roster)
    members = again.members("main", {"lineage.main": HASH}, passwords=True)
    assert members.devices == (Member("ann", HASH), Member("bob"))
    assert (members.lineages, members.operators) == ((Member("main", HASH),), (Member("opa"),))
    assert again.members("main", {}, passwords=False).devices[0] == Member("ann")


def test_while_a_card_is_missing_the_roster_of_before_holds(path: Path, roll: Roll) -> None:
    known = Known(path, ANCHOR)
    assert tell(known, roll, "ann", "bob")
    roll.change("ann", "revoked")
    assert not tell(known, roll)
    assert names(known) == ["ann", "bob"]
    assert "version 3 holds" in known.missing()
    assert tell(known, roll, "ann")
    assert names(known) == ["bob"]


def test_an_old_head_and_an_old_card_change_nothing(path: Path, roll: Roll) -> None:
    old_head, old_entry, known = roll.roster.text, roll.entry("ann"), Known(path, ANCHOR)
    roll.change("ann", "revoked")
    assert tell(known, roll, "ann", "bob")
    with pytest.raises(Refused, match="goes back behind"):
        known.on_head(old_head)
    known.on_entry(old_entry, "main")
    assert not known.settle()
    assert names(known) == ["bob"]


def test_only_the_aggregator_that_the_head_names_is_heard(path: Path, roll: Roll) -> None:
    known = Known(path, ANCHOR)
    with pytest.raises(Refused, match="no head"):
        known.on_entry(roll.entry("ann"), "main")
    known.on_head(roll.roster.text)
    with pytest.raises(Refused, match="not the key of 'main'"):
        known.on_entry(roll.entry("ann", EVE), "main")
    with pytest.raises(Refused, match="an entry by 'other'"):
        known.on_entry(roll.entry("ann", sender="other"), "main")
    with pytest.raises(Refused, match="of 'elsewhere'"):
        known.on_entry(roll.entry("ann", federation="elsewhere"), "main")
    with pytest.raises(Refused, match="signature"):
        known.on_entry(roll.entry("ann").replace(b'"to":"ann"', b'"to":"bob"'), "main")


def test_a_card_that_no_operator_counted_lets_nobody_in(path: Path, roll: Roll) -> None:
    """Signed by itself, brought by the aggregator: the head's tree does not have it."""
    known, forged = Known(path, ANCHOR), Roll()
    forged.change("ann")
    forged.change("eve")
    roll.cards["eve"] = forged.cards["eve"]
    assert not tell(known, roll, "ann", "bob", "eve")
    assert names(known) == []


def test_a_hash_that_mosquitto_must_not_read_is_none(path: Path) -> None:
    roll, known = Roll(), Known(path, ANCHOR)
    roll.change("ann", login="$7$101$x\nbroker:$7$1$")
    assert tell(known, roll, "ann")
    assert known.members("main", {}, passwords=True).devices == (Member("ann"),)


def test_a_damaged_file_is_told_with_the_way_out(path: Path, roll: Roll) -> None:
    tell(Known(path, ANCHOR), roll, "ann", "bob")
    file = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(file | {"cards": file["cards"][:1]}))
    with pytest.raises(StoreError, match=r"roster\.json: damaged \(it is not as it was written\); remove it"):
        Known(path, ANCHOR)
