"""Keys on disk: what a device or an aggregator signs with and is sealed to, and the shared `secret.key`. Reads and
writes files.

A key file is mode 0600, is never overwritten, and its content never appears in a message. The folder of a process's
own keys is mode 0700.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from floe.errors import KeyFileError
from floe.files import sync_folder, write_atomically
from floe.messages import Message
from floe.signing import RSA_BITS, RSA_EXPONENT, Algorithm, PrivateKey, public_text, sign, signature


@dataclass(frozen=True)
class Identity:
    """Who signs: a name and its private key."""

    name: str
    private: PrivateKey

    @property
    def key(self) -> str:
        """The public key as it stands in messages."""
        return public_text(self.private.public_key())

    @property
    def mark(self) -> str:
        """Eight characters (48 bits of a SHA-256) of this key's own, which nobody can tell who has not got it."""
        private = self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return base64.urlsafe_b64encode(hashlib.sha256(b"floe client id\0" + private).digest())[:8].decode()

    def sign(self, message: Message) -> bytes:
        """The signed payload of a message."""
        return sign(message, self.private)

    def sign_bytes(self, data: bytes) -> str:
        """A signature, base64url, over bytes that are no message."""
        return signature(data, self.private)


def load_identity(folder: Path, name: str, algorithm: Algorithm = "ed25519") -> Identity:
    """The identity `<folder>/<name>.pem`, made for `algorithm` at its first use; from then on its key tells.

    Raises `KeyFileError`, also for a folder that others can look into.
    """
    check_folder(folder)
    path = folder / f"{name}.pem"
    return read_identity(path, name) if present(path) else new_identity(path, name, algorithm)


def new_identity(path: Path, name: str, algorithm: Algorithm = "ed25519") -> Identity:
    """Make a signing key in a file (PKCS #8 in PEM). Raises `KeyFileError` if the file exists.

    An RSA key takes a second or more on a small device.
    """
    private: PrivateKey
    if algorithm == "ed25519":
        private = Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(RSA_EXPONENT, RSA_BITS)
    write_private(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Identity(name, private)


def read_identity(path: Path, name: str) -> Identity:
    """The signing key in a file, of either algorithm. Raises `KeyFileError`."""
    loaded = _read_pem(path)
    if not isinstance(loaded, Ed25519PrivateKey) and not _is_our_rsa(loaded):
        raise KeyFileError(f"{path}: {type(loaded).__name__}, a key for {' or '.join(get_args(Algorithm))} is needed")
    return Identity(name, loaded)


def load_sealing_key(folder: Path, name: str) -> X25519PrivateKey:
    """What transfers are sealed to: the X25519 key `<folder>/<name>.hpke.pem` (PKCS #8, RFC 8410), made at its first
    use. Raises `KeyFileError`, also for a folder that others can look into.
    """
    check_folder(folder)
    path = folder / f"{name}.hpke.pem"
    if not present(path):
        fresh = X25519PrivateKey.generate()
        write_private(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    loaded = _read_pem(path)
    if not isinstance(loaded, X25519PrivateKey):
        raise KeyFileError(f"{path}: {type(loaded).__name__}, an X25519 key is needed")
    return loaded


def new_secret(path: Path) -> None:
    """Write a fresh Fernet key, mode 0600. Raises `KeyFileError` if the file exists, or its folder does not."""
    if not path.parent.is_dir():
        raise KeyFileError(f"{path}: no folder {path.parent}; make it first")
    if present(path):
        raise KeyFileError(f"{path}: exists already, and is never overwritten; remove it first if it is not in use")
    write_private(path, Fernet.generate_key() + b"\n")


def load_secret(path: Path, state: Path) -> bytes | None:
    """The 32 bytes of `secret.key`, or None where it never was.

    Side effect: remembers in `state` that a key was there; a key that once was there and is missing now raises
    `KeyFileError` instead of falling back to plaintext.
    """
    witness = state / "sealed"
    secret = read_secret(path)
    if secret is None:
        if present(witness):
            raise KeyFileError(
                f"{path}: missing, but this state folder has used it; bring the key back "
                f"(to run without sealing on purpose, remove {witness})"
            )
        return None
    if not present(witness):
        write_atomically(witness, b"this state folder seals with a shared secret.key\n")
    return secret


def read_secret(path: Path) -> bytes | None:
    """The 32 bytes of a `secret.key`, None where there is none. Raises `KeyFileError`."""
    if not present(path):
        return None
    text = read_private(path).strip()
    try:
        Fernet(text)
    except ValueError:
        raise KeyFileError(f"{path}: not a Fernet key (32 bytes in base64url); `floe key new` makes one") from None
    return base64.urlsafe_b64decode(text)


def present(path: Path) -> bool:
    """Whether something is there, be it a link that leads nowhere. Raises `KeyFileError` if that cannot be told."""
    # A key that cannot be looked at, or a link that leads nowhere, must not be taken for none: that would be plaintext.
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    return True


def _is_our_rsa(key: PrivateKeyTypes) -> TypeGuard[rsa.RSAPrivateKey]:
    if not isinstance(key, rsa.RSAPrivateKey):
        return False
    return key.key_size == RSA_BITS and key.public_key().public_numbers().e == RSA_EXPONENT


def check_folder(folder: Path) -> None:
    """Others may not look into a folder of keys, nor put one there. A folder that is not there yet is made private."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise KeyFileError(f"{folder}: cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise KeyFileError(f"{folder}: mode {mode:04o} lets others in; run `chmod 700 {folder}`")


def _read_pem(path: Path) -> PrivateKeyTypes:
    pem = read_private(path)
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path}: not a private key in PEM; restore it from a backup, or move it away") from None


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, never over another. Raises `KeyFileError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Whole or absent, as in `replacing`; but a link takes no other file's place. The part may be a dead process's.
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        finally:
            part.unlink()
        sync_folder(path.parent)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists already, and is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None


def read_private(path: Path) -> bytes:
    """A file that nobody else can read. Raises `KeyFileError`."""
    try:
        found = path.stat().st_mode
        if not stat.S_ISREG(found):
            what = "a folder" if stat.S_ISDIR(found) else "no regular file"
            raise KeyFileError(f"{path}: {what}, where a file is needed; restore the file, or move this away")
        if (mode := stat.S_IMODE(found)) & 0o077:
            raise KeyFileError(f"{path}: mode {mode:04o} lets others read it; run `chmod 600 {path}`")
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
