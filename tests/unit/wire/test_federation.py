"""`floe federation new` and `delegate`, and who the operator is: files only."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from floe import config as configuration
from floe.anchor import read_anchor
from floe.asker import KnownRoster, check_open, load_asker, newest_delegation, read_kept
from floe.cli import floe
from floe.errors import ConfigError, KeyFileError, Refused, StoreError
from floe.files import write_atomically
from floe.identity import load_identity, read_identity
from floe.roster import read_head
from floe.settings import Config
from floe.sign_roster import next_head
from floe.signing import public_text

FILES = (
    "root/root.pem",
    "federation.pub",
    "operator.pem",
    "operators.delegation",
    "state/aggregator-main/keys/main.pem",
    "state/aggregator-main/keys/main.hpke.pem",
    "state/aggregator-main/head",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    return CliRunner().invoke(floe, ["federation", *arguments], catch_exceptions=False).output


def config() -> Config:
    return configuration.load(environ={})


def contents() -> dict[str, bytes]:
    return {name: Path(name).read_bytes() for name in FILES}


def head_text() -> str:
    return Path(FILES[-1]).read_text()


def key_text(seed: int) -> str:
    return public_text(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key())


def test_a_new_federation_has_all_that_its_first_day_needs() -> None:
    said = run("new", "--operator", "opa", "--days", "10")
    assert "TAKE IT AWAY" in said
    anchor = read_anchor(Path("federation.pub"))
    assert anchor is not None
    roster = read_head(head_text(), anchor)
    keys = Path("state/aggregator-main/keys")
    assert roster.version == roster.head.group == roster.aggregator("main").epoch == roster.delegation.seq == 1
    assert roster.head.count == 0
    assert roster.aggregator("main").signing == read_identity(keys / "main.pem", "main").key
    assert roster.operators() == (("opa", read_identity(Path("operator.pem"), "opa").key),)
    assert 9.9 * 86400 < roster.delegation.until - time.time() <= 10 * 86400
    private = [name for name in FILES if name.endswith(".pem")]
    assert {oct(Path(name).stat().st_mode & 0o777) for name in private} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in (Path("root"), keys, keys.parent)} == {"0o700"}


def test_nothing_is_overwritten() -> None:
    run("new")
    before = contents()
    with pytest.raises(KeyFileError, match="has been made already"):
        run("new")
    assert contents() == before


@pytest.mark.parametrize("there", range(1, len(FILES)))
def test_an_interrupted_new_is_finished_by_another(there: int) -> None:
    run("new")
    before = contents()
    for name in FILES[there:]:
        Path(name).unlink()
    run("new")
    after = contents()
    assert {name: after[name] for name in FILES[:there]} == {name: before[name] for name in FILES[:there]}
    anchor = read_anchor(Path("federation.pub"))
    assert anchor is not None
    assert (
        read_head(head_text(), anchor).aggregator("main").signing
        == load_identity(Path("state/aggregator-main/keys"), "main").key
    )


def test_an_interrupted_new_wants_the_same_operator() -> None:
    run("new", "--operator", "opa")
    Path(FILES[-1]).unlink()
    with pytest.raises(KeyFileError, match="names opa, not 'bea'"):
        run("new", "--operator", "bea")


def test_a_folder_of_a_federation_whose_root_was_taken_away_gets_no_second_root() -> None:
    run("new")
    for name in (FILES[0], FILES[-1]):
        Path(name).unlink()
    with pytest.raises(KeyFileError, match="belongs to federation 'floe'"):
        run("new")


@pytest.mark.parametrize("used", ["state/aggregator-main/keys/main.pem", "log/floe.sqlite"])
def test_what_ran_without_enrolment_is_not_mixed_with_it(used: str) -> None:
    Path(used).parent.mkdir(parents=True)
    Path(used).touch()
    with pytest.raises(KeyFileError, match="without enrolment") as error:
        run("new")
    assert used in str(error.value)
    assert not Path("root").exists()


def test_an_operator_may_not_have_the_lineage_s_name() -> None:
    with pytest.raises(ConfigError, match="the lineage has this name"):
        run("new", "--operator", "main")
    with pytest.raises(KeyFileError, match="needs a name"):
        run("new", "--operator", "Ann")


def test_delegations_count_up_and_name_who_is_told() -> None:
    run("new", "--operator", "opa")
    run("delegate", "bea", "--key", key_text(7))
    anchor = read_anchor(Path("federation.pub"))
    assert anchor is not None
    delegation = newest_delegation(config(), anchor)[1]
    assert (delegation.seq, [found.name for found in delegation.operators]) == (2, ["opa", "bea"])
    run("delegate", "--remove", "opa", "--days", "1")
    delegation = newest_delegation(config(), anchor)[1]
    assert (delegation.seq, [(found.name, found.key) for found in delegation.operators]) == (3, [("bea", key_text(7))])
    assert delegation.until < time.time() + 86401


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["bea", "--key", "x"], "not a public key"),
        (["--key", "x"], "whose"),
        (["--remove", "cleo"], "no operator; delegation 1 names opa"),
        (["--remove", "opa"], "nobody would be left"),
    ],
)
def test_a_delegation_that_makes_no_sense_is_none(arguments: list[str], fault: str) -> None:
    run("new", "--operator", "opa")
    before = Path("operators.delegation").read_bytes()
    with pytest.raises(ConfigError, match=fault):
        run("delegate", *arguments)
    assert Path("operators.delegation").read_bytes() == before


def test_only_the_root_delegates() -> None:
    run("new")
    with pytest.raises(KeyFileError, match="not the root key of 'floe'"):
        run("delegate", "operator", "--root", "operator.pem")
    Path("root/root.pem").rename("stick.pem")
    with pytest.raises(KeyFileError, match="no root key here"):
        run("delegate", "operator")
    assert "delegation 2" in run("delegate", "operator", "--root", "stick.pem")


def test_the_operator_s_name_is_what_the_newest_delegation_says() -> None:
    run("new", "--operator", "opa")
    assert load_asker(config()).identity.name == "opa"
    run("delegate", "bea", "--key", read_identity(Path("operator.pem"), "").key, "--remove", "opa")
    assert load_asker(config()).identity.name == "bea"
    run("delegate", "cleo", "--key", key_text(7), "--remove", "bea")
    with pytest.raises(KeyFileError, match="none of delegation 3, which names cleo"):
        load_asker(config())


def test_a_head_may_know_a_newer_delegation_than_the_file() -> None:
    run("new", "--operator", "opa")
    old = Path("operators.delegation").read_bytes()
    run("delegate", "bea", "--key", key_text(7))
    asker = load_asker(config())
    known = asker.known
    assert known is not None
    roster = read_head(head_text(), known.anchor)
    newer = next_head(
        roster, asker.identity, int(time.time()), delegation=Path("operators.delegation").read_text().strip()
    )
    known.take(newer.head)
    Path("operators.delegation").write_bytes(old)
    assert newest_delegation(config(), known.anchor)[1].seq == 2


def test_an_operator_without_a_key_or_a_delegation_is_told_what_is_missing() -> None:
    run("new")
    Path("operator.pem").rename("away.pem")
    with pytest.raises(KeyFileError, match="no operator's key here"):
        load_asker(config())
    Path("away.pem").rename("operator.pem")
    Path(FILES[-1]).unlink()
    Path("operators.delegation").write_text("{}")
    with pytest.raises(KeyFileError, match="not a delegation by the root of 'floe'"):
        load_asker(config())
    Path("operators.delegation").unlink()
    with pytest.raises(KeyFileError, match=r"operators\.delegation: missing"):
        load_asker(config())


def test_an_operator_who_was_enrolled_is_not_without_federation_pub() -> None:
    run("new", "--operator", "opa")
    write_atomically(Path("state/operator-opa/enrolled"), Path("federation.pub").read_bytes())
    Path("federation.pub").unlink()
    with pytest.raises(KeyFileError, match="this state folder has been enrolled"):
        load_asker(config())


def test_an_operator_does_not_take_an_older_roster_than_was_seen_before() -> None:
    run("new", "--operator", "opa")
    asker = load_asker(config())
    known = asker.known
    assert known is not None
    first = known.take(head_text())
    second = next_head(first, asker.identity, int(time.time())).head
    assert known.take(second).version == 2
    again = KnownRoster(asker.state / "head", known.anchor)
    assert again.roster is not None
    assert again.roster.text == second
    with pytest.raises(Refused, match="goes back behind version 2"):
        again.take(head_text())
    (asker.state / "head").write_text(second[:-20])
    with pytest.raises(StoreError, match="it is fetched again"):
        read_kept(asker.state / "head", known.anchor)


def test_nothing_is_signed_under_a_delegation_that_has_ended() -> None:
    run("new")
    anchor = read_anchor(Path("federation.pub"))
    assert anchor is not None
    delegation = newest_delegation(config(), anchor)[1]
    check_open(delegation, delegation.until)
    with pytest.raises(KeyFileError, match="floe federation delegate"):
        check_open(delegation, delegation.until + 1)


def test_without_enrolment_the_commands_of_the_roster_say_how_it_begins() -> None:
    for command in (["invite"], ["devices", "list"], ["federation", "publish"]):
        error = CliRunner().invoke(floe, command, standalone_mode=False).exception
        assert isinstance(error, KeyFileError)
        assert "devices are not enrolled here; `floe federation new` begins it" in str(error)
