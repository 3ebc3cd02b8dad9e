"""A device alone with a hostile broker, which shows it a roster that is old, or not its federation's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from helpers.arena import Arena, arena_on
from helpers.enrolment import OPERATOR, REVOKED, Enrolled
from helpers.federation import LINEAGE, NAME
from helpers.process import Process

from floe.documents import Aggregator, Card, Entry, Head, Keys, Operator
from floe.hpke import seal_to, sealing_text
from floe.identity import Identity, load_identity, load_sealing_key
from floe.roster import Anchor, group_info, read_card
from floe.seal import KEY_BYTES
from floe.sign_roster import delegate, first_head
from floe.signing import to_text, verify
from floe.store import FILE, read_log
from floe.topics import CurrentRoster, EntryTo

both = pytest.mark.parametrize("defended", [False, True])
HEAD, ENTRY = str(CurrentRoster(NAME, LINEAGE)), str(EntryTo(NAME, LINEAGE, "a"))
DAY = 86_400


@pytest.fixture(scope="module")
def stages(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], Stage]]:
    made: dict[bool, Stage] = {}
    with ExitStack() as stack:

        def stage(defended: bool) -> Stage:
            if defended not in made:
                folder = tmp_path_factory.mktemp("stage")
                made[defended] = Stage(stack.enter_context(arena_on(folder, template, defended=defended)), template)
            return made[defended]

        yield stage


@pytest.fixture
def stage(stages: Callable[[bool], Stage], defended: bool) -> Iterator[Stage]:
    """Device a as it was when it had joined, and has heard the newest head; no aggregator runs."""
    found = stages(defended)
    found.begin()
    yield found
    found.device.terminate()
    found.device.end()


class Stage:
    """Device a, what may be said to it, and the keys of all."""

    def __init__(self, arena: Arena, template: Path) -> None:
        assert isinstance(arena.federation, Enrolled)
        self.arena, self.federation = arena, arena.federation
        self._state = template / "state" / "device-a"
        self.head = (template / "state" / f"operator-{OPERATOR}" / "head").read_text().strip()
        self.first = (template / "state" / f"aggregator-{LINEAGE}" / "head").read_text().strip()
        self.device: Process

    def begin(self) -> None:
        shutil.rmtree(self.federation.state("a"))
        shutil.copytree(self._state, self.federation.state("a"))
        self.device = self.arena.client("a")
        self.until("connected to", self.device.said().count("connected to") + 1)
        self.say(HEAD, self.head)
        self.until("roster: version 6", self.device.said().count("roster: version 6") + 1)

    def until(self, text: str, count: int) -> None:
        self.federation.wait(lambda: self.device.said().count(text) >= count, f"a was to say {text!r}")

    def say(self, topic: str, text: str) -> None:
        self.arena.proxy.say("a", topic, text.encode(), retained=True)

    @property
    def entry(self) -> str:
        """The newest that a has kept."""
        return self.federation.known("a")["entry"]

    def card(self, device: str) -> str:
        db = read_log(self.federation.folder / "log" / FILE)
        try:
            (row,) = db.query("SELECT card FROM roster WHERE device = ?", [device])
        finally:
            db.close()
        return str(row["card"])

    def new_entry(self, by: Identity, device: str, card: str, seq: int) -> str:
        """An entry as the aggregator makes it."""
        keys, group = read_card(card, self.federation.anchor), 6
        info = group_info(NAME, LINEAGE, device, group)
        sealed = to_text(seal_to(keys.keys.sealing, bytes(KEY_BYTES), info)) if keys.state == "approved" else ""
        entry = Entry(
            federation=NAME, sender=LINEAGE, key=by.key, proof="", seq=seq, to=device, card=card, group=group,
            group_key=sealed,
        )  # fmt: skip
        return by.sign(entry).decode()

    def new_head(self, by: Identity, **changes: object) -> str:
        """The next head, or another."""
        head = self.federation.roster("a").head
        fields = {"sender": by.name, "key": by.key, "seq": head.seq + 1}
        return by.sign(msgspec.structs.replace(head, **(fields | changes))).decode()


def foreign(stage: Stage) -> str:
    """Another root, its operator and its aggregator, all in order, under the same name."""
    folder = stage.federation.folder / "foreign"
    root, operator, aggregator = (load_identity(folder, name) for name in ("root", OPERATOR, LINEAGE))
    delegation = delegate(Anchor(NAME, root.key), root, [Operator(OPERATOR, operator.key)], 9, 2**40)
    keys = Aggregator(LINEAGE, aggregator.key, sealing_text(load_sealing_key(folder, LINEAGE).public_key()), 9)
    head = verify(first_head(Anchor(NAME, root.key), operator, keys, delegation, 2**39).encode(), Head)
    return operator.sign(msgspec.structs.replace(head, seq=7, group=7)).decode()


def by_a_member(stage: Stage) -> str:
    return stage.new_head(stage.arena.attacker(OPERATOR, "c").identity)


def after_its_end(stage: Stage) -> str:
    """The operator signs though the delegation has ended."""
    until = stage.federation.roster("a").delegation.until
    return stage.new_head(stage.federation.operator, issued=until + DAY)


def removed(stage: Stage) -> str:
    """The root has named another operator since; the one of before goes on under the old delegation, and backdates."""
    roster, federation = stage.federation.roster("a"), stage.federation
    new = load_identity(federation.folder / "new", "neo")
    serial = roster.delegation.seq + 1
    delegation = delegate(federation.anchor, federation.root, [Operator("neo", new.key)], serial, 2**40)
    stage.say(HEAD, stage.new_head(new, delegation=delegation))
    stage.federation.wait(lambda: stage.federation.roster("a").version == roster.version + 1, "the head was to count")
    return stage.new_head(federation.operator, delegation=roster.head.delegation)


def older(stage: Stage) -> str:
    return stage.first


def another_of_this_version(stage: Stage) -> str:
    head = stage.federation.roster("a").head
    return stage.new_head(stage.federation.operator, seq=head.seq, issued=head.issued + 1)


@dataclass(frozen=True)
class Case:
    """A head, the defence against it, the words with which it is refused."""

    make: Callable[[Stage], str]
    defence: str
    refused: str


HEADS = {
    "of a foreign root": Case(foreign, "root", "unknown-key: the delegation is not signed by the root"),
    "by a member": Case(by_a_member, "delegates", "is no operator of delegation"),
    "after the delegation has ended": Case(after_its_end, "delegation-end", "had ended"),
    "by an operator who is none any more": Case(removed, "follows", "serial of the delegation"),
    "older than the newest": Case(older, "follows", "goes back behind version 6"),
    "another of the same version": Case(another_of_this_version, "follows", "another version 6 than the one"),
}


@both
@pytest.mark.parametrize("case", HEADS)
def test_attack_a_head_that_does_not_count(stage: Stage, case: str) -> None:
    with stage.arena.without(HEADS[case].defence):
        head = HEADS[case].make(stage)
        refused = stage.arena.said(stage.device, HEADS[case].refused)
        stage.say(HEAD, head)
        stage.arena.judge(succeeded=lambda: stage.federation.known("a")["head"] == head, refused=refused)


@both
def test_attack_an_older_entry(stage: Stage) -> None:
    """Rollback of the group key: models of before could be sealed again for who was put out since."""
    old = stage.entry
    new = stage.new_entry(stage.arena.aggregator_identity, "a", stage.card("a"), 2**45)
    stage.say(ENTRY, new)
    stage.federation.wait(lambda: stage.entry == new, "a newer entry was to count")
    refused = stage.arena.said(stage.device, "older entry than the one that was seen before")
    with stage.arena.without("entry-order"):
        stage.say(ENTRY, old)
        stage.arena.judge(succeeded=lambda: stage.entry == old, refused=refused)


@both
def test_attack_the_entry_of_another_device(stage: Stage) -> None:
    """The revocation of another, signed by the aggregator, is shown to a: it would believe that it is meant."""
    text = stage.new_entry(stage.arena.aggregator_identity, REVOKED, stage.card(REVOKED), 2**45)
    refused = stage.arena.said(stage.device, "an entry of 'ex'")
    with stage.arena.without("entry-recipient"):
        stage.say(ENTRY, text)
        stage.arena.judge(succeeded=lambda: not stage.device.running, refused=refused)


@both
def test_attack_an_entry_that_the_aggregator_has_not_made(stage: Stage) -> None:
    """Member c tells a that a is revoked."""
    attacker = stage.arena.attacker(OPERATOR, "c")
    keys = Keys(attacker.identity.key, "A" * 43, ("chacha20-poly1305",))
    card = attacker.sign(Card, seq=6, member="a", state="revoked", keys=keys).decode()
    text = stage.new_entry(attacker.identity, "a", card, 2**45)
    refused = stage.arena.said(stage.device, "/to/a/entry: unknown-key")
    with stage.arena.without("aggregator"):
        stage.say(ENTRY, text)
        stage.arena.judge(succeeded=lambda: not stage.device.running, refused=refused)


@both
def test_attack_an_older_head_after_a_kill(stage: Stage) -> None:
    """What a device has seen outlives a SIGKILL."""
    stage.device.kill()
    stage.device = stage.arena.client("a")
    stage.until("connected to", stage.device.said().count("connected to") + 1)
    refused = stage.arena.said(stage.device, "goes back behind version 6")
    with stage.arena.without("follows"):
        stage.say(HEAD, stage.first)
        stage.arena.judge(succeeded=lambda: stage.federation.known("a")["head"] == stage.first, refused=refused)


@both
def test_attack_enrolment_that_is_taken_away(stage: Stage) -> None:
    """A downgrade: without its federation.pub a device would go on without sealing, and trust whom it sees first."""
    public, aside = stage.federation.folder / "federation.pub", stage.federation.folder / "aside"
    stage.device.kill()
    public.rename(aside)
    refused = stage.arena.said(stage.device, "bring it back (it is public: any member has it)")
    believed = stage.arena.said(stage.device, "weights and metrics travel in PLAINTEXT")
    with stage.arena.without("witness"):
        stage.device = stage.arena.client("a")
        stage.arena.judge(succeeded=believed, refused=refused)
    aside.rename(public)
    assert not stage.arena.defended or stage.device.wait() == 5
