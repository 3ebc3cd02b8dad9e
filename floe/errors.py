"""Every error Floe raises on purpose, and the exit code a process ends with.

FloeError                     1   something a person must read; never a traceback
├── ConfigError               2   a flag, a variable or a key of floe.toml is wrong
├── DataError                 3   features, labels, CSV or model files cannot be used
├── BrokerError               4   no broker, wrong port, refused login, Mosquitto missing
├── KeyFileError              5   a key file is missing, unreadable, too open or wrong
├── StoreError                6   the disk or the database refused to keep something
├── IncompleteError           7   the work ended before every round was closed
├── DamageError               8   `floe check` found something that is not as it was written
├── RuleError                 1   what a rule makes of a round's updates is no model
├── OutputError              74   stdout cannot be written to
└── Refused                   -   a peer broke the protocol: counted, logged and answered, never fatal

Two kinds of fault are kept apart, as h11 does it: all but the last are ours (or our user's);
`Refused` is the peer's and carries the `reason` that goes into its answer and into `updates`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

__all__ = [
    "AccessError",
    "BrokerError",
    "ConfigError",
    "DamageError",
    "DataError",
    "FloeError",
    "IncompleteError",
    "KeyFileError",
    "OutputError",
    "Refused",
    "RuleError",
    "StoreError",
]


class FloeError(Exception):
    """Something went wrong that a person must read: what, where, and the way out."""

    exit_code: ClassVar[int] = 1


class ConfigError(FloeError):
    """A flag, an environment variable or a key of the configuration file is wrong."""

    exit_code = 2


class DataError(FloeError):
    """Features, labels, a CSV or a model file cannot be used as they are."""

    exit_code = 3


class BrokerError(FloeError):
    """The broker cannot be reached, refused the login, or is not installed."""

    exit_code = 4


class AccessError(BrokerError):
    """A broker is there, and trying again would not help.

    `fault`: "server" (its certificate does not verify), "certificate" (ours is refused, expired or missing), "login"
    (name or password), "no-tls" (we speak TLS and it does not), "tls-only" (the other way round).
    """

    def __init__(self, fault: Literal["server", "certificate", "login", "no-tls", "tls-only"], text: str) -> None:
        super().__init__(text)
        self.fault = fault


class KeyFileError(FloeError):
    """A key file is missing, unreadable, open to others, or not the key it should be."""

    exit_code = 5


class StoreError(FloeError):
    """The disk or the database refused to keep what was promised to be kept."""

    exit_code = 6


class IncompleteError(FloeError):
    """The work ended before every round that was asked for had closed."""

    exit_code = 7


class DamageError(FloeError):
    """What is kept on disk is not as it was written, or not as other places say."""

    exit_code = 8


class RuleError(FloeError):
    """What a rule makes of the updates of a round is no model: some number of it is not finite, or too large."""


class OutputError(FloeError):
    """What was asked for cannot be written to stdout."""

    exit_code = 74  # EX_IOERR of sysexits.h


class Refused(FloeError):
    """A peer broke the protocol or the policy.

    `reason` is one of `messages.Reason`, the word that is recorded and answered;
    the text says what was found and what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
