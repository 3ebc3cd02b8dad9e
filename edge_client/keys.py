"""A device's own keys: what it signs with, and what is sealed to it. Reads and writes its folder of keys.

`keys` is in use; `keys-next` waits until the roster has its public keys, then takes that place by renames, in an order
that a kill between them leaves readable.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from floe.documents import Keys
from floe.errors import KeyFileError
from floe.files import storing, sync_folder
from floe.hpke import sealing_text
from floe.identity import Identity, load_identity, load_sealing_key, present
from floe.messages import Suite
from floe.signing import Algorithm

CURRENT, NEXT, OLD = "keys", "keys-next", "keys-old"


@dataclass(frozen=True)
class DeviceKeys:
    """The private keys of one device."""

    identity: Identity
    sealing: X25519PrivateKey

    def public(self, suites: tuple[Suite, ...]) -> Keys:
        """What the roster shall say of this device; `suites` in the order of preference."""
        return Keys(signing=self.identity.key, sealing=sealing_text(self.sealing.public_key()), suites=suites)


def load_keys(state: Path, name: str, algorithm: Algorithm = "ed25519") -> DeviceKeys:
    """The keys in use, made at their first use. Raises `KeyFileError`, `StoreError`."""
    take_next(state, finish_only=True)
    return _load(state / CURRENT, name, algorithm)


def have_keys(state: Path, name: str) -> bool:
    """Whether this device has its keys, both; a change of keys that was cut off is brought to its end.

    Raises `KeyFileError`, `StoreError`.
    """
    take_next(state, finish_only=True)
    return all(present(state / CURRENT / f"{name}{ending}") for ending in (".pem", ".hpke.pem"))


def load_next(state: Path, name: str, algorithm: Algorithm = "ed25519", *, make: bool = True) -> DeviceKeys:
    """The keys that shall follow, made at their first use, or `KeyFileError`."""
    if not make and not (state / NEXT / f"{name}.hpke.pem").exists():
        raise KeyFileError(f"{state / NEXT}: no keys that follow")
    return _load(state / NEXT, name, algorithm)


def take_next(state: Path, *, finish_only: bool = False) -> None:
    """Put the next keys in the place of those in use; `finish_only`: where that was begun. Raises `StoreError`."""
    current, following, old = state / CURRENT, state / NEXT, state / OLD
    with storing(state):
        if not finish_only and current.exists():
            shutil.rmtree(old, ignore_errors=True)
            current.rename(old)
        if not current.exists() and old.exists():
            following.rename(current)
            sync_folder(state)
        shutil.rmtree(old, ignore_errors=True)


def _load(folder: Path, name: str, algorithm: Algorithm) -> DeviceKeys:
    return DeviceKeys(load_identity(folder, name, algorithm), load_sealing_key(folder, name))
