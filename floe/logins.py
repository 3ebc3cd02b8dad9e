"""Passwords for a broker, and their hashes as Mosquitto 2 keeps them. Chance comes from the system; no files.

A hash is `$7$101$<salt>$<hash>`: PBKDF2-HMAC-SHA512 (RFC 8018) with 101 iterations, 12 bytes of salt and 64 of hash in
base64. So few iterations are enough for the passwords made here, 256 random bits: nothing can be guessed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

ITERATIONS = 101
HASH = r"\$7\$101\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}=="
_SALT_BYTES, _PASSWORD_BYTES = 12, 32


def new_password() -> str:
    """A random password of 43 characters (256 bits in base64url)."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def hash_of(password: str) -> str:
    """The hash of a password under a fresh salt, as it stands in Mosquitto's password file."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def is_hash(text: str) -> bool:
    """Whether a text is such a hash. Others, of a peer, could cost the broker hours, or put lines into its file."""
    return re.fullmatch(HASH, text) is not None
