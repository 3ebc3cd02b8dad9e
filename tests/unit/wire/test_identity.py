"""Keys on disk: private, never overwritten, never guessed."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from floe.errors import KeyFileError
from floe.identity import (
    load_identity,
    load_sealing_key,
    load_secret,
    new_identity,
    new_secret,
    read_identity,
)
from floe.messages import Status
from floe.signing import public_key, verify


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_identity_is_made_once_private_and_found_again(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "keys", "ann")
    assert load_identity(tmp_path / "keys", "ann").key == first.key
    assert load_identity(tmp_path / "keys", "bob").key != first.key
    assert _mode(tmp_path / "keys" / "ann.pem") == 0o600
    assert _mode(tmp_path / "keys") == 0o700


def test_an_rsa_identity_is_of_its_key_whatever_is_asked_for_later(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "keys", "rob", "rsa-2048-pss")
    public = public_key(first.key)
    assert isinstance(public, RSAPublicKey)
    assert (public.key_size, public.public_numbers().e) == (2048, 65537)
    assert load_identity(tmp_path / "keys", "rob", "ed25519").key == first.key
    assert load_identity(tmp_path / "keys", "ann", "ed25519").key != first.key
    status = Status(federation="floe", sender="rob", key=first.key, proof="", seq=1, state="idle")
    assert verify(first.sign(status), Status) == status


def test_a_sealing_key_is_another_than_the_signing_key_made_once_and_private(tmp_path: Path) -> None:
    first = load_sealing_key(tmp_path / "keys", "ann")
    assert load_sealing_key(tmp_path / "keys", "ann").private_bytes_raw() == first.private_bytes_raw()
    assert load_sealing_key(tmp_path / "keys", "bob").private_bytes_raw() != first.private_bytes_raw()
    assert _mode(tmp_path / "keys" / "ann.hpke.pem") == 0o600
    assert _mode(tmp_path / "keys") == 0o700
    load_identity(tmp_path / "keys", "ann")
    (tmp_path / "keys" / "ann.hpke.pem").chmod(0o640)
    with pytest.raises(KeyFileError, match=r"chmod 600 .*ann\.hpke\.pem"):
        load_sealing_key(tmp_path / "keys", "ann")


def test_keys_of_two_kinds_do_not_stand_in_for_each_other(tmp_path: Path) -> None:
    load_identity(tmp_path, "ann")
    load_sealing_key(tmp_path, "bob")
    (tmp_path / "ann.pem").rename(tmp_path / "ann.hpke.pem")
    (tmp_path / "bob.hpke.pem").rename(tmp_path / "bob.pem")
    with pytest.raises(KeyFileError, match=r"ann\.hpke\.pem: .*Ed25519.*, an X25519 key is needed"):
        load_sealing_key(tmp_path, "ann")
    with pytest.raises(KeyFileError, match=r"bob\.pem: .*X25519.*, a key for ed25519 or rsa-2048-pss is needed"):
        load_identity(tmp_path, "bob")


def test_a_new_identity_overwrites_nothing(tmp_path: Path) -> None:
    first = new_identity(tmp_path / "opa.pem", "opa")
    with pytest.raises(KeyFileError, match="exists already, and is never overwritten"):
        new_identity(tmp_path / "opa.pem", "opa")
    assert read_identity(tmp_path / "opa.pem", "opa").key == first.key


@pytest.mark.parametrize("load", [load_identity, load_sealing_key])
@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o720])
def test_a_folder_of_keys_that_others_can_look_into_is_refused(
    tmp_path: Path, mode: int, load: Callable[[Path, str], object]
) -> None:
    keys = tmp_path / "keys"
    load(keys, "ann")
    keys.chmod(mode)
    with pytest.raises(KeyFileError, match=rf"keys: mode {mode:04o} lets others in; run `chmod 700 {keys}`"):
        load(keys, "ann")
    with pytest.raises(KeyFileError, match="chmod 700"):
        load(keys, "bob")
    assert not list(keys.glob("bob*")), "no key is made where others can look"


def test_a_key_that_a_dead_process_left_half_written_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".ann.pem.part").write_bytes(b"-----BEGIN")
    first = load_identity(tmp_path, "ann")
    assert load_identity(tmp_path, "ann").key == first.key
    assert [path.name for path in tmp_path.iterdir()] == ["ann.pem"]


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa-2048-pss"])
def test_a_mark_is_the_same_for_one_key_and_is_not_made_of_what_others_know(tmp_path: Path, algorithm: Any) -> None:
    ann = load_identity(tmp_path, "ann", algorithm)
    assert load_identity(tmp_path, "ann").mark == ann.mark
    assert re.fullmatch(r"[A-Za-z0-9_-]{8}", ann.mark)
    assert ann.mark != load_identity(tmp_path, "bob", algorithm).mark
    public = hashlib.sha256(b"floe client id\0" + ann.key.encode()).digest()
    assert ann.mark not in (ann.key, base64.urlsafe_b64encode(public)[:8].decode())
    assert ann.mark not in ann.key


def test_what_an_identity_signs_verifies(tmp_path: Path) -> None:
    ann = load_identity(tmp_path, "ann")
    status = Status(federation="floe", sender="ann", key=ann.key, proof="", seq=1, state="idle")
    assert verify(ann.sign(status), Status) == status


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    load_identity(tmp_path, "ann")
    (tmp_path / "ann.pem").chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o} lets others read it; run `chmod 600"):
        load_identity(tmp_path, "ann")


def test_a_file_that_is_no_key_is_named_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "ann.pem"
    path.touch(0o600)
    with pytest.raises(KeyFileError, match=r"ann\.pem: not a private key in PEM"):
        load_identity(tmp_path, "ann")
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 1024), rsa.generate_private_key(3, 2048), Ed448PrivateKey.generate()],
    ids=["too short", "exponent 3", "Ed448"],
)  # fmt: skip
def test_a_key_of_another_kind_is_refused(tmp_path: Path, key: rsa.RSAPrivateKey | Ed448PrivateKey) -> None:
    path = tmp_path / "ann.pem"
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyFileError, match="a key for ed25519 or rsa-2048-pss is needed"):
        load_identity(tmp_path, "ann")


def test_a_new_secret_is_private_is_a_fernet_key_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    new_secret(path)
    before = path.read_bytes()
    assert _mode(path) == 0o600
    Fernet(before.strip())
    with pytest.raises(KeyFileError, match="never overwritten"):
        new_secret(path)
    assert path.read_bytes() == before


def test_a_new_secret_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"no folder .*typo; make it first"):
        new_secret(tmp_path / "typo" / "secret.key")
    assert not (tmp_path / "typo").exists()


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="File name too long"):
        new_secret(tmp_path / ("k" * 300))


def test_a_link_to_a_secret_that_is_gone_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "secret.key").symlink_to(tmp_path / "unmounted" / "secret.key")
    with pytest.raises(KeyFileError, match=r"secret\.key: cannot be read: No such file"):
        load_secret(tmp_path / "secret.key", tmp_path / "state")


def test_without_a_secret_there_is_none_and_nothing_is_remembered(tmp_path: Path) -> None:
    assert load_secret(tmp_path / "secret.key", tmp_path / "state") is None
    assert not (tmp_path / "state").exists()


def test_a_secret_that_was_used_and_is_missing_stops_the_process(tmp_path: Path) -> None:
    path, state = tmp_path / "secret.key", tmp_path / "state"
    new_secret(path)
    secret = load_secret(path, state)
    assert secret is not None
    assert len(secret) == 32
    path.unlink()
    with pytest.raises(KeyFileError, match="missing, but this state folder has used it"):
        load_secret(path, state)


@pytest.mark.parametrize("text", ["", "short", "x" * 44, "A" * 43])
def test_a_secret_that_is_no_fernet_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret.key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(KeyFileError, match="not a Fernet key") as refusal:
        load_secret(path, tmp_path)
    assert not text or text not in str(refusal.value)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    new_secret(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_secret(path, tmp_path)
