"""Keys on disk: the Ed25519 identity of a device or an aggregator, and the shared `secret.key`. Reads and writes files.

A key file is mode 0600, is never overwritten, and its content never appears in a message.
"""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from floe.errors import KeyFileError
from floe.files import sync_folder, write_atomically
from floe.messages import Message
from floe.signing import public_text, sign


@dataclass(frozen=True)
class Identity:
    """Who signs: a name and its private key."""

    name: str
    private: Ed25519PrivateKey

    @property
    def key(self) -> str:
        """The public key as it stands in messages."""
        return public_text(self.private.public_key())

    def sign(self, message: Message) -> bytes:
        """The signed payload of a message."""
        return sign(message, self.private)


def load_identity(folder: Path, name: str) -> Identity:
    """The identity `<folder>/<name>.pem` (PKCS #8), made at its first use. Raises `KeyFileError`."""
    path = folder / f"{name}.pem"
    if not present(path):
        key = Ed25519PrivateKey.generate()
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pem = read_private(path)
    try:
        loaded = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path}: not a private key in PEM; restore it from a backup, or move it away") from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: {type(loaded).__name__}, an Ed25519 key is needed")
    return Identity(name, loaded)


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


def write_private(path: Path, content: bytes) -> None:
    """Write a private key, mode 0600, whole or not at all and over nothing. Raises `KeyFileError`."""
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
    """The content of a private key's file. Raises `KeyFileError`, also for a mode that lets others read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise KeyFileError(f"{path}: mode {mode:04o} lets others read it; run `chmod 600 {path}`")
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
