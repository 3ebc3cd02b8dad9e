"""The page's password: scrypt (RFC 7914), as one line of text for floe.toml. Never kept, never logged."""

from __future__ import annotations

import base64
import hmac
import os
import re

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from floe.errors import ConfigError

COST = 2**15  # 32 MB and some 0.1 s on a Pi 4: what a guess costs, too
_FORM = re.compile(r"scrypt\$(\d{1,7})\$([A-Za-z0-9_-]{22})\$([A-Za-z0-9_-]{43})")


def hashed(password: str, salt: bytes | None = None, cost: int = COST) -> str:
    """`scrypt$<N>$<salt>$<hash>`, r = 8 and p = 1, base64url without padding."""
    salt = os.urandom(16) if salt is None else salt
    derived = Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(password.encode())
    return f"scrypt${cost}${_text(salt)}${_text(derived)}"


def check_form(kept: str) -> None:
    """Raises `ConfigError` for what `hashed` never makes."""
    found = _FORM.fullmatch(kept)
    if not found or int(found[1]) not in (2**n for n in range(14, 20)):
        raise ConfigError(
            "[ui] password: not a hash as `floe ui --new-password` prints it; a password itself does not belong there"
        )


def matches(password: str, kept: str) -> bool:
    """Whether it is the password whose hash is kept."""
    _, cost, salt, _ = kept.split("$")
    return hmac.compare_digest(hashed(password, base64.urlsafe_b64decode(salt + "=="), int(cost)), kept)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
