"""Local policy on sealing: what is accepted is never a message's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.wire import ANN, EVE, SEALED, SECRET, SUITES, core, keyring

from floe import keyring as keyrings
from floe import messages as m
from floe.errors import ConfigError, KeyFileError, Refused
from floe.identity import new_secret
from floe.keyring import Keyring, load_keyring, open_meta, suite_here, suite_of
from floe.report import Metrics, Report
from floe.seal import sealer
from floe.settings import Config, Security

KEY = bytes(range(100, 132))


def _sealed(suite: m.Suite, **changes: Any) -> m.Core:
    draft = core(suite, **changes)
    return msgspec.structs.replace(draft, commitment=sealer(draft, KEY).commitment)


@pytest.mark.parametrize("mine", SUITES)
@pytest.mark.parametrize("theirs", SUITES)
def test_either_aead_is_accepted_for_the_other_and_nothing_else(mine: m.Suite, theirs: m.Suite) -> None:
    aead = {"chacha20-poly1305", "aes-256-gcm"}
    assert keyring(mine).accepts(theirs) == (mine == theirs or {mine, theirs} == aead)


@pytest.mark.parametrize("suite", SUITES)
def test_what_a_keyring_seals_another_with_the_same_secret_opens(suite: m.Suite) -> None:
    ring, sealed = keyring(suite), _sealed(suite)
    opened = keyring(suite).open(sealed, ring.envelope(sealed, KEY, "main"))
    assert opened.open(0, sealer(sealed, KEY).seal(0, b"abc")) == b"abc"


def test_plaintext_is_refused_by_whoever_has_a_key_and_sealing_by_whoever_has_none() -> None:
    plain, sealed = _sealed("plaintext"), _sealed("aes-256-gcm")
    with pytest.raises(Refused, match="suite: sealed with plaintext"):
        keyring("chacha20-poly1305").open(plain, keyring("plaintext").envelope(plain, KEY, "main"))
    with pytest.raises(Refused, match="suite: sealed with aes-256-gcm"):
        keyring("plaintext").open(sealed, keyring("aes-256-gcm").envelope(sealed, KEY, "main"))


def test_a_content_key_that_the_transfer_is_not_committed_to_is_refused() -> None:
    ring, sealed = keyring("aes-256-gcm"), _sealed("aes-256-gcm")
    with pytest.raises(Refused, match="not the one that the transfer is committed to"):
        ring.open(sealed, ring.envelope(sealed, bytes(32), "main"))


def test_another_secret_opens_nothing() -> None:
    sealed = _sealed("chacha20-poly1305")
    with pytest.raises(Refused, match=r"unsealing: .*another secret\.key"):
        keyring("chacha20-poly1305").open(sealed, Keyring("chacha20-poly1305", bytes(32)).envelope(sealed, KEY, "main"))


def test_content_keys_are_random_and_empty_in_plaintext() -> None:
    assert keyring("plaintext").new_content_key() == b""
    assert len({keyring("fernet").new_content_key() for _ in range(10)}) == 10
    assert SECRET not in {keyring("fernet").new_content_key()}


def status(name: str = "ann", **changes: Any) -> m.Status:
    """A status that proves membership of a federation whose secret is `SECRET`."""
    proof = keyring("fernet").proof("floe", name, ANN.key)
    fields = {"federation": "floe", "sender": name, "key": ANN.key, "proof": proof, "seq": 1, "state": "online"}
    return m.Status(**{**fields, **changes})


@pytest.mark.parametrize("suite", SEALED)
def test_a_member_proves_its_key_and_nobody_else_does(suite: m.Suite) -> None:
    ring, right = keyring(suite), status()
    assert ring.proves(right)
    assert ring.proves(status(seq=2, state="offline")), "it proves the key, whatever the message says"
    strange = Keyring(suite, bytes(32)).proof("floe", "ann", ANN.key)
    for copied in ({"key": EVE.key}, {"sender": "eve"}, {"federation": "other"}):
        assert not ring.proves(status(**{"proof": right.proof, **copied}))
    assert not ring.proves(status(proof=strange))
    assert not ring.proves(status(proof=""))


def test_a_name_cannot_be_stretched_into_the_next_line_of_a_proof() -> None:
    ring = keyring("fernet")
    assert ring.proof("floe", "ann", ANN.key) != ring.proof("floe-ann", "ann", ANN.key)
    assert ring.proof("a", "bc", ANN.key) != ring.proof("ab", "c", ANN.key)


def test_in_plaintext_the_proof_is_empty_and_any_other_is_none() -> None:
    plain = keyring("plaintext")
    assert plain.proof("floe", "ann", ANN.key) == ""
    assert plain.proves(status(proof=""))
    assert not plain.proves(status())


def test_without_a_key_there_is_plaintext_and_with_one_there_is_not(tmp_path: Path) -> None:
    config = Config(folder=tmp_path)
    assert load_keyring(config, tmp_path / "state") == Keyring("plaintext", None)
    new_secret(tmp_path / "secret.key")
    found = load_keyring(config, tmp_path / "state")
    assert found.suite == "chacha20-poly1305"
    assert found.secret is not None


def test_plaintext_beside_a_key_is_a_contradiction(tmp_path: Path) -> None:
    new_secret(tmp_path / "secret.key")
    with pytest.raises(ConfigError, match=r"suite = 'plaintext', but .*secret\.key exists"):
        load_keyring(Config(security=Security(suite="plaintext"), folder=tmp_path), tmp_path)


def test_auto_is_what_the_role_says_and_a_suite_that_is_named_is_that_one(tmp_path: Path) -> None:
    new_secret(tmp_path / "secret.key")
    for auto in ("aes-256-gcm", "chacha20-poly1305"):
        assert load_keyring(Config(folder=tmp_path), tmp_path, auto).suite == auto
        fernet = Config(security=Security(suite="fernet"), folder=tmp_path)
        assert load_keyring(fernet, tmp_path, auto).suite == "fernet"


def test_auto_is_no_reason_to_seal_without_a_key(tmp_path: Path) -> None:
    assert load_keyring(Config(folder=tmp_path), tmp_path, "aes-256-gcm") == Keyring("plaintext", None)


X86 = "processor\t: 0\nmodel name\t: aes\nflags\t\t: fpu {} vaes_not avx2\nbugs\t\t:\n\n"
PI = "processor\t: 0\nFeatures\t: fp asimd evtstrm {} crc32 cpuid\nCPU implementer\t: 0x41\n\n"


@pytest.mark.parametrize(
    ("cpuinfo", "suite"),
    [
        (X86.format("aes") * 2, "aes-256-gcm"),
        (X86.format("sse2") * 2, "chacha20-poly1305"),
        (PI.format("aes pmull"), "aes-256-gcm"),
        (PI.format(""), "chacha20-poly1305"),
        (PI.format("aes") + PI.format(""), "chacha20-poly1305"),
        ("processor : 0\nModel : aes\n", "chacha20-poly1305"),
        ("", "chacha20-poly1305"),
    ],
    ids=["x86", "old x86", "Pi 5", "Pi 4", "cores that differ", "no flags", "empty"],
)
def test_aes_is_taken_where_every_core_has_instructions_for_it(cpuinfo: str, suite: m.Suite) -> None:
    assert suite_of(cpuinfo) == suite


def test_the_suite_of_this_machine_is_read_and_guessed_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyrings, "CPUINFO", tmp_path / "cpuinfo")
    assert suite_here() == "chacha20-poly1305"
    (tmp_path / "cpuinfo").write_bytes(b"model name: \xff\nflags: aes\n")
    assert suite_here() == "aes-256-gcm"


def test_a_key_that_is_gone_does_not_become_plaintext(tmp_path: Path) -> None:
    new_secret(tmp_path / "secret.key")
    load_keyring(Config(folder=tmp_path), tmp_path / "state")
    (tmp_path / "secret.key").unlink()
    with pytest.raises(KeyFileError, match="bring the key back"):
        load_keyring(Config(folder=tmp_path), tmp_path / "state")


def _report(text: str) -> Report:
    sealed = _sealed("chacha20-poly1305")
    opened = sealer(sealed, KEY)
    return open_meta(opened, msgspec.structs.replace(sealed, meta=opened.seal_meta(text)), Report)


def test_a_report_is_read() -> None:
    text = '{"samples":3,"after":{"loss":0.5,"accuracy":1}}'
    assert _report(text) == Report(samples=3, after=Metrics(loss=0.5, accuracy=1.0))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"samples":-1}', "metrics"),
        ('{"samples":1e3}', "metrics"),
        ('{"threshold":-0.5}', "metrics"),
        ('{"after":{"loss":1e400,"accuracy":1}}', "metrics"),
        ('{"after":{"loss":0,"accuracy":1.01}}', "metrics"),
        ('{"more":1}', "metrics"),
        ('{"failure":"\\ud800"}', "malformed"),
        ('{"samples":NaN}', "malformed"),
        ("", "malformed"),
    ],
)
def test_a_report_with_impossible_content_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        _report(text)
    assert refusal.value.reason == reason
