"""Sealing as a member of a roster: what opens what, and every way down to something weaker is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from helpers.wire import ANN, EVE, SECRET, SUITES, core

from floe import messages as m
from floe.errors import ConfigError, KeyFileError, Refused
from floe.hpke import sealing_text
from floe.identity import new_secret
from floe.keyring import EnrolledKeyring, Keyring, Ring, load_enrolled
from floe.seal import sealer, wrap_group, wrap_hpke, wrap_shared
from floe.settings import Config, Security

KEY, GROUP_KEY = bytes(range(100, 132)), bytes(range(50, 82))
OURS, OTHER = X25519PrivateKey.generate(), X25519PrivateKey.generate()
AEAD = ("chacha20-poly1305", "aes-256-gcm")
WRAPS = ("none", "shared", "hpke", "group")
EXPECTED = {"model": "group", "update": "hpke"}


def member(private: X25519PrivateKey = OURS, secret: bytes | None = None, **ring: Any) -> EnrolledKeyring:
    fields = {"version": 5, "group": 3, "group_key": GROUP_KEY, "recipients": {"main": public(OURS)}}
    return EnrolledKeyring("chacha20-poly1305", secret, private, Ring(**{**fields, **ring}))


def public(private: X25519PrivateKey) -> str:
    return sealing_text(private.public_key())


def committed(kind: m.Kind, suite: m.Suite = "chacha20-poly1305") -> m.Core:
    draft = core(suite, kind=kind, sender="main" if kind == "model" else "ann")
    return msgspec.structs.replace(draft, commitment=sealer(draft, KEY).commitment)


def wrapped(sealed: m.Core, wrap: str, secret: bytes = b"") -> m.Envelope:
    """The content key under a wrap, made as well as its maker can."""
    match wrap:
        case "none":
            return m.Envelope(to="main", wrap="none", key="")
        case "shared":
            return wrap_shared(sealed, KEY, secret or SECRET, "main")
        case "hpke":
            return wrap_hpke(sealed, KEY, bytes(32), secret, public(OURS), "main")
        case _:
            return wrap_group(sealed, KEY, secret, GROUP_KEY, 3, "main")


@pytest.mark.parametrize(("suite", "wrap", "kind", "secret"), [*product(SUITES, WRAPS, EXPECTED, [None, SECRET])])
def test_every_suite_and_wrap_but_the_right_one_is_refused(
    suite: m.Suite, wrap: str, kind: m.Kind, secret: bytes | None
) -> None:
    sealed, ring = committed(kind, suite), member(secret=secret)
    envelope = wrapped(sealed, wrap, secret or b"")
    if suite in AEAD and wrap == EXPECTED[kind]:
        assert ring.open(sealed, envelope).open(0, sealer(sealed, KEY).seal(0, b"abc")) == b"abc"
        return
    fault = f"content key under '{wrap}'" if suite in AEAD else f"sealed with {suite}"
    with pytest.raises(Refused, match=f"suite: {fault}"):
        ring.open(sealed, envelope)


@pytest.mark.parametrize("kind", [*EXPECTED])
@pytest.mark.parametrize("suite", AEAD)
def test_what_a_member_seals_another_opens_that_it_is_for(kind: m.Kind, suite: m.Suite) -> None:
    sealed = committed(kind, suite)
    envelope = member(OTHER).envelope(sealed, KEY, "main")
    assert envelope.wrap == EXPECTED[kind]
    assert envelope.group == (3 if kind == "model" else 0)
    member(OURS).open(sealed, envelope)
    if kind == "update":
        with pytest.raises(Refused, match="unsealing"):
            member(OTHER).open(sealed, envelope)
    else:
        member(OTHER).open(sealed, envelope)


@pytest.mark.parametrize(("kind", "ours", "theirs"), [*product(EXPECTED, [None, SECRET, bytes(32)], [None, SECRET])])
def test_the_secret_is_mixed_in_on_both_sides_or_nothing_opens(
    kind: m.Kind, ours: bytes | None, theirs: bytes | None
) -> None:
    sealed = committed(kind)
    envelope = member(secret=theirs).envelope(sealed, KEY, "main")
    if ours == theirs:
        member(secret=ours).open(sealed, envelope)
        return
    with pytest.raises(Refused, match="unsealing"):
        member(secret=ours).open(sealed, envelope)


def test_a_model_under_another_group_key_is_refused_by_its_version_and_by_the_key() -> None:
    sealed = committed("model")
    for group in (2, 4):
        with pytest.raises(Refused, match=f"roster: sealed under group key {group}, here is 3"):
            member().open(sealed, wrap_group(sealed, KEY, b"", GROUP_KEY, group, "*"))
    with pytest.raises(Refused, match="unsealing"):
        member().open(sealed, wrap_group(sealed, KEY, b"", bytes(32), 3, "*"))


@pytest.mark.parametrize("group", [0, 3])
def test_without_a_group_key_no_model_opens_and_none_is_sealed(group: int) -> None:
    """Who was revoked has none: a key that everybody knows must not stand in its place."""
    sealed, ring = committed("model"), member(group=group, group_key=b"")
    with pytest.raises(Refused, match="roster: sealed under group key"):
        ring.open(sealed, wrap_group(sealed, KEY, b"", b"", group, "*"))
    with pytest.raises(Refused, match=r"roster: version 5 of the roster has no key for '\*' yet"):
        ring.envelope(sealed, KEY, "*")


def test_an_update_is_sealed_to_lineages_of_the_roster_only() -> None:
    with pytest.raises(Refused, match="has no key for 'other' yet"):
        member().envelope(committed("update"), KEY, "other")
    with pytest.raises(Refused, match="has no key for 'main' yet"):
        member(recipients={}).envelope(committed("update"), KEY, "main")


@pytest.mark.parametrize("change", [{"round": 4}, {"sender": "eve"}, {"federation": "mill"}, {"lineage": "west"},
                                    {"epoch": 2}, {"base": "c" * 64}, {"salt": "6" * 32}])  # fmt: skip
@pytest.mark.parametrize("kind", [*EXPECTED])
def test_an_envelope_belongs_to_one_transfer(kind: m.Kind, change: dict[str, Any]) -> None:
    sealed = committed(kind)
    envelope = member().envelope(sealed, KEY, "main")
    with pytest.raises(Refused, match="unsealing"):
        member().open(msgspec.structs.replace(sealed, **change), envelope)


@pytest.mark.parametrize("kind", [*EXPECTED])
def test_a_content_key_that_the_transfer_is_not_committed_to_is_refused(kind: m.Kind) -> None:
    sealed = committed(kind)
    with pytest.raises(Refused, match="not the one that the transfer is committed to"):
        member().open(sealed, member().envelope(sealed, bytes(32), "main"))


def test_models_have_the_suite_of_the_roster_and_updates_that_of_the_device() -> None:
    ring = EnrolledKeyring("aes-256-gcm", None, OURS, Ring(version=7))
    assert (ring.suite_for("update"), ring.suite_for("model")) == ("aes-256-gcm", "chacha20-poly1305")
    ring.ring.model_suite = "aes-256-gcm"
    assert ring.suite_for("model") == "aes-256-gcm"
    assert (ring.version, Keyring("plaintext", None).version) == (7, 0)


def test_a_shared_secret_proves_nobody_here() -> None:
    proof = Keyring("chacha20-poly1305", SECRET).proof("floe", "eve", EVE.key)
    status = m.Status(federation="floe", sender="eve", key=EVE.key, proof=proof, seq=1, state="online")
    assert Keyring("chacha20-poly1305", SECRET).proves(status)
    assert not member(secret=SECRET).proves(status)
    assert member(secret=SECRET).proof("floe", "ann", ANN.key) == ""


def test_content_keys_are_random_with_and_without_a_secret() -> None:
    assert len({member(secret=secret).new_content_key() for secret in (None, SECRET) for _ in range(5)}) == 10
    sealed = committed("update")
    assert len({member().envelope(sealed, KEY, "main").key for _ in range(5)}) == 5


def test_a_keyring_is_loaded_with_the_secret_that_lies_there_and_not_without_one_that_did(tmp_path: Path) -> None:
    config, state = Config(folder=tmp_path), tmp_path / "state"
    assert load_enrolled(config, state, OURS, Ring()).secret is None
    new_secret(tmp_path / "secret.key")
    found = load_enrolled(config, state, OURS, Ring(), "aes-256-gcm")
    assert (found.suite, len(found.secret or b"")) == ("aes-256-gcm", 32)
    (tmp_path / "secret.key").unlink()
    with pytest.raises(KeyFileError, match="bring the key back"):
        load_enrolled(config, state, OURS, Ring())


@pytest.mark.parametrize("suite", ["fernet", "plaintext"])
def test_a_suite_that_enrolment_does_not_have_is_named(tmp_path: Path, suite: Any) -> None:
    config = Config(security=Security(suite=suite), folder=tmp_path)
    with pytest.raises(ConfigError, match=rf"\[security\] suite = '{suite}': with enrolment chacha20-poly1305 or"):
        load_enrolled(config, tmp_path, OURS, Ring())
