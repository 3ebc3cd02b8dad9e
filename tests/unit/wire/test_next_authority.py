"""Another authority: made beside the one that is there, published, then taken; killed between every two steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.killed import Killed, killed_at

from floe import config as configuration
from floe import federation
from floe.anchor import read_anchor
from floe.certificates import load_authority, new_authority, read_certificate
from floe.cli import floe
from floe.errors import BrokerError, KeyFileError
from floe.identity import Identity, read_identity
from floe.next_authority import authority_here, finish_taking, next_authority, take_next_authority
from floe.papers import Papers
from floe.roster import Roster, read_head
from floe.sign_roster import Change

NOW = 1_800_000_000.0
STEPS = 24  # of making one, publishing it, and taking it: more than there are


def changed(folder: Path, publish: Callable[[str], None] = lambda both: None) -> None:
    """What `floe federation authority` does on the disk."""
    if not finish_taking(folder):
        publish(next_authority(folder, "floe", NOW))
        take_next_authority(folder)


def seen(folder: Path) -> str:
    """Whom an aggregator or a broker takes for the authority."""
    found = authority_here(folder)
    assert found is not None
    return found.pem


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("ca.key", "ca.pem")}


def test_another_authority_stands_before_the_one_that_was(tmp_path: Path) -> None:
    before = new_authority(tmp_path, "floe", NOW)
    Papers(tmp_path, "operator.opa").renew(NOW)
    both = next_authority(tmp_path, "floe", NOW)
    assert both.endswith(before.pem)
    assert next_authority(tmp_path, "floe", NOW) == both
    assert seen(tmp_path) == before.pem, "until the roster names it"
    assert Papers(tmp_path, "operator.opa").renew(NOW) == ""
    take_next_authority(tmp_path)
    assert load_authority(tmp_path).certificate == read_certificate(both) != before.certificate
    assert (tmp_path / "ca.pem").read_text() == both
    assert "made" in Papers(tmp_path, "operator.opa").renew(NOW), "it signs from now on"
    assert not finish_taking(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("ca")} == {"ca.key", "ca.pem"}
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_two_changes_keep_the_last_two_authorities(tmp_path: Path) -> None:
    first = new_authority(tmp_path, "floe", NOW)
    changed(tmp_path)
    second = load_authority(tmp_path)
    changed(tmp_path)
    third = load_authority(tmp_path)
    assert (tmp_path / "ca.pem").read_text() == third.pem + second.pem
    assert len({first.pem, second.pem, third.pem}) == 3


@pytest.mark.parametrize("who_is_next", ["operator", "aggregator"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_change_that_was_killed_anywhere_leaves_an_authority_and_ends_with_the_published_one(
    tmp_path: Path, step: int, who_is_next: str
) -> None:
    before = new_authority(tmp_path, "floe", NOW)
    published: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        taken = killed_at(patch, step)
        try:
            changed(tmp_path, published.append)
            assert step == STEPS or len(taken) < step
        except Killed:
            assert len(taken) >= step
    cut_off = len(taken) >= step
    if who_is_next == "aggregator":
        found = seen(tmp_path)
        assert found == before.pem or found + before.pem in published, "nobody goes over before the head names it"
    if cut_off:
        changed(tmp_path, published.append)
    assert published
    assert set(published) == {(tmp_path / "ca.pem").read_text()}, "no second one was made"
    assert load_authority(tmp_path).pem + before.pem == published[0]
    assert {path.name for path in tmp_path.iterdir()} == {"ca.key", "ca.pem"}


def test_the_steps_are_all_of_them(tmp_path: Path) -> None:
    new_authority(tmp_path, "floe", NOW)
    with pytest.MonkeyPatch.context() as patch:
        taken = killed_at(patch, STEPS)
        changed(tmp_path)
    assert 8 < len(taken) < STEPS


def test_where_a_change_was_cut_off_the_next_start_goes_on(tmp_path: Path) -> None:
    new_authority(tmp_path, "floe", NOW)
    both = next_authority(tmp_path, "floe", NOW)
    (tmp_path / "ca-next").rename(tmp_path / "ca-taken")
    (tmp_path / "ca-taken" / "ca.key").replace(tmp_path / "ca.key")
    assert both.startswith(seen(tmp_path))
    assert (tmp_path / "ca.pem").read_text() == both


def test_files_that_do_not_belong_together_are_refused_as_before(tmp_path: Path) -> None:
    new_authority(tmp_path / "a", "floe", NOW)
    new_authority(tmp_path / "b", "floe", NOW)
    (tmp_path / "a" / "ca.key").replace(tmp_path / "b" / "ca.key")
    with pytest.raises(KeyFileError, match="not the certificate of"):
        authority_here(tmp_path / "b")
    assert authority_here(tmp_path / "a") is None


class Held:
    """An aggregator that takes heads, or does not, behind the operator's command."""

    def __init__(self, folder: Path) -> None:
        anchor = read_anchor(folder / "federation.pub")
        assert anchor is not None
        self.anchor = anchor
        self.roster = read_head((folder / "state/aggregator-main/head").read_text().strip(), anchor)
        self.operator: Identity = read_identity(folder / "operator.pem", "operator")
        self.faults = 0
        self.replies_lost = 0
        self.published = 0

    def newest(self) -> Roster:
        return self.roster

    def check_may_sign(self, delegation: object) -> None:
        assert delegation == self.roster.delegation

    def publish(self, make: Callable[[], tuple[Roster, Change]]) -> Roster:
        if self.faults:
            self.faults -= 1
            raise BrokerError("no reply")
        self.roster = read_head(make()[1].head, self.anchor)
        self.published += 1
        if self.replies_lost:
            self.replies_lost -= 1
            raise BrokerError("no reply")
        return self.roster


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Held:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(floe, ["federation", "new", "--login", "certificates"])
    assert result.exit_code == 0, result.output
    made = Held(tmp_path)

    @contextmanager
    def managing(config: object, wait_s: float) -> Iterator[Held]:
        yield made

    monkeypatch.setattr(federation, "managing", managing)
    return made


def order() -> str:
    result = CliRunner().invoke(floe, ["federation", "authority"])
    if isinstance(result.exception, BrokerError):
        return "no reply"
    assert result.exception is None, result.exception
    return result.output


def test_nobody_goes_over_to_an_authority_that_was_not_published(held: Held, tmp_path: Path) -> None:
    access = configuration.load(environ={}).path("access")
    before = files(access)
    held.faults = 2
    assert order() == order() == "no reply"
    assert files(access) == before
    assert Papers(access, "operator.operator").renew(time.time()) == ""
    assert "another authority, version 2" in order()
    assert (access / "ca.pem").read_text() == held.roster.head.ca
    assert held.roster.head.ca.endswith(before["ca.pem"].decode())


def test_what_was_published_already_is_not_published_again(held: Held, tmp_path: Path) -> None:
    access = configuration.load(environ={}).path("access")
    before = files(access)
    held.replies_lost = 1
    assert order() == "no reply"
    assert files(access) == before
    assert "another authority, version 2" in order()
    assert held.published == 1
    assert (access / "ca.pem").read_text() == held.roster.head.ca


def test_a_change_that_was_cut_off_after_it_was_published_is_ended_and_no_third_made(held: Held) -> None:
    access = configuration.load(environ={}).path("access")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("floe.next_authority._move", lambda folder: (_ for _ in ()).throw(BrokerError("killed")))
        assert order() == "no reply"
    assert "is in its place" in order()
    assert held.published == 1
    assert (access / "ca.pem").read_text() == held.roster.head.ca
    assert "version 3" in order(), "from now on it is another change"
