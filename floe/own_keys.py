"""A member's own keys, a device's or an aggregator's: what it signs with, what is sealed to it. Reads and writes them.

`keys` is in use; what `keys-next` has waits until the roster knows it, then takes that place, file by file, in an order
that tells after a kill that it was begun.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from floe.documents import Keys
from floe.files import storing, sync_folder
from floe.hpke import sealing_text
from floe.identity import Identity, load_identity, load_sealing_key, present
from floe.messages import Suite
from floe.signing import Algorithm

CURRENT, NEXT = "keys", "keys-next"
SIGNING, SEALING = ".pem", ".hpke.pem"  # made in this order, and moved in this order


@dataclass(frozen=True)
class OwnKeys:
    """The private keys of one member."""

    identity: Identity
    sealing: X25519PrivateKey

    def public(self, suites: tuple[Suite, ...], login: str = "", tls: str = "") -> Keys:
        """What the roster shall say of this member; `suites` in the order of preference, the rest for the broker."""
        sealing = sealing_text(self.sealing.public_key())
        return Keys(signing=self.identity.key, sealing=sealing, suites=suites, login=login, tls=tls)


def load_keys(state: Path, name: str, algorithm: Algorithm = "ed25519") -> OwnKeys:
    """The keys in use, made at their first use. Raises `KeyFileError`, `StoreError`."""
    _finish(state, name)
    return _load(state / CURRENT, name, algorithm)


def have_keys(state: Path, name: str) -> bool:
    """Whether this member has its keys, both; a change of keys that was cut off is brought to its end.

    Raises `KeyFileError`, `StoreError`.
    """
    _finish(state, name)
    return all(present(state / CURRENT / f"{name}{ending}") for ending in (SIGNING, SEALING))


def load_next(state: Path, name: str, algorithm: Algorithm = "ed25519") -> OwnKeys:
    """The keys that shall follow, made at their first use. Raises `KeyFileError`."""
    return _load(state / NEXT, name, algorithm)


def has_next(state: Path, name: str) -> bool:
    """Whether there are keys that shall follow."""
    return all(present(state / NEXT / f"{name}{ending}") for ending in (SIGNING, SEALING))


def take_next(state: Path, name: str) -> None:
    """Put the next keys in the place of those in use. Raises `StoreError`."""
    following, current = state / NEXT, state / CURRENT
    with storing(state):
        for path in (following / f"{name}{ending}" for ending in (SIGNING, SEALING)):
            if present(path):
                path.replace(current / path.name)
                sync_folder(current)
        shutil.rmtree(following)  # with what a process that died while it made them has left


def was_cut_off(state: Path, name: str) -> bool:
    """Whether one of the next keys has taken its place, and the other not yet."""
    return present(state / NEXT / f"{name}{SEALING}") and not present(state / NEXT / f"{name}{SIGNING}")


def _finish(state: Path, name: str) -> None:
    if was_cut_off(state, name):
        take_next(state, name)


def _load(folder: Path, name: str, algorithm: Algorithm) -> OwnKeys:
    return OwnKeys(load_identity(folder, name, algorithm), load_sealing_key(folder, name))
