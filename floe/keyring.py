"""Local policy on sealing: which suite, which keys, what is accepted from others. Never decided by a message.

Enrolled: an update or telemetry opens for its aggregator, a model for those who have the group key. Shared-key mode:
whoever has `secret.key` can open every transfer. With no key at all, plaintext.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from floe.errors import ConfigError, Refused
from floe.identity import load_secret
from floe.messages import Core, Envelope, Kind, Message, Suite, parse_json
from floe.seal import (
    KEY_BYTES,
    Sealer,
    membership_proof,
    sealer,
    unwrap_group,
    unwrap_hpke,
    unwrap_shared,
    wrap_group,
    wrap_hpke,
    wrap_shared,
)
from floe.settings import Config

WARNING = "no secret.key: weights and metrics travel in PLAINTEXT; `floe key new` makes a key"
COMMON: Suite = "chacha20-poly1305"  # fast on every processor
CPUINFO = Path("/proc/cpuinfo")
_AEAD: Sequence[Suite] = (COMMON, "aes-256-gcm")
T = TypeVar("T")


@dataclass(frozen=True)
class Keyring:
    """The suite this process seals with, and the 32 bytes of the shared secret (None: plaintext)."""

    suite: Suite
    secret: bytes | None

    @property
    def version(self) -> int:
        """The version of the roster that is known here; 0 without enrolment."""
        return 0

    def suite_for(self, kind: Kind) -> Suite:
        """The suite of a transfer that is made here."""
        return self.suite

    def accepts(self, suite: Suite) -> bool:
        """Either AEAD suite where one is configured (a device takes the faster one); otherwise its own only."""
        return suite == self.suite or (suite in _AEAD and self.suite in _AEAD)

    def proof(self, federation: str, sender: str, key: str) -> str:
        """That whoever holds the signing key `key` knows the shared secret; empty in plaintext."""
        if self.secret is None:
            return ""
        return membership_proof(self.secret, federation, sender, key)

    def proves(self, message: Message) -> bool:
        """Whether a message's key may be pinned: its proof is that of its federation, sender and key."""
        expected = self.proof(message.federation, message.sender, message.key)
        return hmac.compare_digest(message.proof, expected)

    def new_content_key(self) -> bytes:
        """A random content key for one transfer; empty in plaintext."""
        return b"" if self.secret is None else os.urandom(KEY_BYTES)

    def envelope(self, core: Core, content_key: bytes, to: str) -> Envelope:
        """The content key, sealed for its recipient; `*` is everybody in the federation."""
        if self.secret is None:
            return Envelope(to=to, wrap="none", key="")
        return wrap_shared(core, content_key, self.secret, to)

    def open(self, core: Core, envelope: Envelope) -> Sealer:
        """What opens the chunks of a transfer. Raises `Refused`: `suite`, `unsealing`, `malformed`."""
        if not self.accepts(core.suite):
            raise Refused("suite", f"sealed with {core.suite}, accepted here: {self.suite}")
        if self.secret is None:
            return sealer(core, b"")
        if envelope.wrap != "shared":
            raise Refused("suite", f"content key under {envelope.wrap!r}, accepted here: 'shared'")
        return _committed(core, unwrap_shared(core, envelope, self.secret))


@dataclass
class Ring:
    """What the roster gives at present: its version, whom to seal to by lineage, and the group key of models."""

    version: int = 0
    recipients: dict[str, str] = field(default_factory=dict)
    group: int = 0
    group_key: bytes = b""
    model_suite: Suite = "chacha20-poly1305"


@dataclass(frozen=True)
class EnrolledKeyring(Keyring):
    """As a member of a roster: `private` opens what is sealed to this process; a `secret` is mixed in."""

    private: X25519PrivateKey
    ring: Ring

    @property
    def version(self) -> int:
        return self.ring.version

    def suite_for(self, kind: Kind) -> Suite:
        """Models are for all: the suite that every device opens quickly."""
        return self.ring.model_suite if kind == "model" else self.suite

    def accepts(self, suite: Suite) -> bool:
        return suite in _AEAD

    def proof(self, federation: str, sender: str, key: str) -> str:
        """None: the roster says who belongs here."""
        return ""

    def proves(self, message: Message) -> bool:
        return False

    def new_content_key(self) -> bytes:
        return os.urandom(KEY_BYTES)

    def envelope(self, core: Core, content_key: bytes, to: str) -> Envelope:
        """Raises `Refused("roster")` where the roster has not said yet to whom."""
        mixed = self.secret or b""
        if core.kind == "model" and self.ring.group_key:
            return wrap_group(core, content_key, mixed, self.ring.group_key, self.ring.group, to)
        if core.kind != "model" and to in self.ring.recipients:
            return wrap_hpke(core, content_key, os.urandom(KEY_BYTES), mixed, self.ring.recipients[to], to)
        raise Refused("roster", f"version {self.version} of the roster has no key for {to!r} yet")

    def open(self, core: Core, envelope: Envelope) -> Sealer:
        """Raises `Refused`: as `Keyring.open`, and `roster` for a group key that is not the present one."""
        if not self.accepts(core.suite):
            raise Refused("suite", f"sealed with {core.suite}, accepted here: {' and '.join(_AEAD)}")
        expected = "group" if core.kind == "model" else "hpke"
        if envelope.wrap != expected:
            raise Refused("suite", f"content key under {envelope.wrap!r}, accepted here: {expected!r}")
        if expected == "hpke":
            return _committed(core, unwrap_hpke(core, envelope, self.secret or b"", self.private))
        if envelope.group != self.ring.group or not self.ring.group_key:
            raise Refused("roster", f"sealed under group key {envelope.group}, here is {self.ring.group}")
        return _committed(core, unwrap_group(core, envelope, self.secret or b"", self.ring.group_key))


def _committed(core: Core, content_key: bytes) -> Sealer:
    opened = sealer(core, content_key)
    if opened.commitment != core.commitment:
        raise Refused("unsealing", "the content key is not the one that the transfer is committed to")
    return opened


def load_enrolled(
    config: Config, state: Path, private: X25519PrivateKey, ring: Ring, auto: Suite = COMMON
) -> EnrolledKeyring:
    """The keyring of an enrolled process: `secret.key`, if any, is mixed in. Raises `KeyFileError`, `ConfigError`."""
    secret = load_secret(config.path(config.security.secret_key), state)
    suite = auto if config.security.suite == "auto" else config.security.suite
    if suite not in _AEAD:
        raise ConfigError(f"[security] suite = {suite!r}: with enrolment {' or '.join(_AEAD)}")
    return EnrolledKeyring(suite, secret, private, ring)


def load_keyring(config: Config, state: Path, auto: Suite = COMMON) -> Keyring:
    """The keyring of a process whose state is kept in `state`. `auto` is what [security] suite = "auto" means to it: to
    a device `suite_here()`, to others what every device opens quickly. Raises `KeyFileError`, `ConfigError`.
    """
    path = config.path(config.security.secret_key)
    secret = load_secret(path, state)
    suite = auto if config.security.suite == "auto" else config.security.suite
    if secret is None:
        return Keyring("plaintext", None)
    if suite == "plaintext":
        raise ConfigError(f"[security] suite = 'plaintext', but {path} exists: choose another suite, or move the key")
    return Keyring(suite, secret)


def suite_here() -> Suite:
    """The suite that this machine seals with fastest. Reads /proc/cpuinfo; without one: `COMMON`."""
    try:
        return suite_of(CPUINFO.read_text(errors="replace"))
    except OSError:
        return COMMON


def suite_of(cpuinfo: str) -> Suite:
    """AES-256-GCM for a processor with AES instructions, by its flags (x86) or features (Arm) in /proc/cpuinfo."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = [words.split() for name, _, words in lines if name.strip() in ("flags", "Features")]
    return "aes-256-gcm" if flags and all("aes" in words for words in flags) else COMMON


def open_meta(opened: Sealer, core: Core, expected: type[T]) -> T:
    """The report inside a manifest, parsed and checked. Raises `Refused`: `unsealing`, `metrics`."""
    try:
        return msgspec.convert(parse_json(opened.open_meta(core.meta).encode()), expected)
    except msgspec.ValidationError as error:
        raise Refused("metrics", f"report: {error}") from None
