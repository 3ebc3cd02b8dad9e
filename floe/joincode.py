"""The join code: all that a new device needs to recognise its federation and to ask to be let in, as one line of text.

`FLOE1:` and the content in base 41: the method of RFC 9285 (base45) without the characters that are lost or changed on
the way through messages and shells: blank, `$`, `%`, `*`. That costs nothing, for 41^3 > 2^16 too, and a QR code still
holds it in its alphanumeric mode (ISO/IEC 18004, 7.4.4). The content ends with a checksum. Pure.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass

from floe.errors import ConfigError, Refused
from floe.settings import Login
from floe.signing import from_text, to_text
from floe.topics import NAME

PREFIX = "FLOE1:"
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ+-./:"
HOST = r"[A-Za-z0-9._:-]{1,253}"
MAX_CHARACTERS = 2000
_CHECKSUM_BYTES = 4
_FIXED = struct.Struct(">32s32s16sIIHHB")
_TLS = 1
_LOGINS: dict[Login, int] = {"shared": 0, "passwords": 2, "certificates": 4}  # how members log in, two bits
_AGAIN = "copy it again, or scan its QR code"


@dataclass(frozen=True)
class JoinCode:
    """An invitation. It holds no shared secret: `token` lets one device ask, once, until `expires`.

    `root` (Ed25519) and `sealing` (X25519, the aggregator's) are public keys as in messages, `token` is 16 bytes in
    hexadecimal, `expires` in seconds since 1970; `version` is the roster's when the code was made: whoever shows the
    device an older one is not believed. `device` is the name that is invited, empty: any. The broker lets members in at
    `port`, by `login`, and who is none yet at `lobby_port`; both with TLS, or neither.
    """

    federation: str
    lineage: str
    device: str
    root: str
    sealing: str
    token: str
    expires: int
    version: int
    host: str
    port: int
    lobby_port: int
    tls: bool
    login: Login = "shared"


def write_code(code: JoinCode) -> str:
    """The code as text: one line, no blanks, upper case. Raises `ConfigError` for what could not be read again."""
    _check(code)
    try:
        fixed = _FIXED.pack(
            from_text(code.root), from_text(code.sealing), bytes.fromhex(code.token), code.expires, code.version,
            code.port, code.lobby_port, _TLS * code.tls | _LOGINS[code.login],
        )  # fmt: skip
    except struct.error:
        numbers = f"valid until {code.expires}, version {code.version}"
        raise ConfigError(f"join code: {numbers}: both must be from 0 to 2^32 - 1") from None
    texts = (text.encode() for text in (code.federation, code.lineage, code.device, code.host))
    content = fixed + b"".join(bytes([len(text)]) + text for text in texts)
    return PREFIX + _encode(content + _checksum(content))


def read_code(text: str) -> JoinCode:
    """The inverse of `write_code`: blanks and line breaks in it do not count, nor do lower and upper case.

    Raises `ConfigError`, which says what is wrong and never shows the code.
    """
    found = "".join(text.split()).upper()
    if not found.startswith(PREFIX):
        made = "made by another version of Floe" if re.match(r"FLOE[0-9]+:", found) else "no join code"
        raise ConfigError(f"join code: {made}; `floe invite` prints one, and it begins with {PREFIX}")
    content = _decode(found.removeprefix(PREFIX))
    content, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if _checksum(content) != checksum:
        raise ConfigError(f"join code: a character is wrong or missing (its checksum does not fit); {_AGAIN}")
    try:
        root, sealing, token, expires, version, port, lobby_port, flags = _FIXED.unpack_from(content)
        federation, lineage, device, host = _texts(content[_FIXED.size :])
    except (struct.error, ValueError):
        raise ConfigError("join code: not made as a join code is; ask for another (`floe invite`)") from None
    login = next((login for login, bits in _LOGINS.items() if bits == flags & ~_TLS), None)
    if login is None:
        raise ConfigError("join code: asks for something that this version of Floe does not know; update it")
    code = JoinCode(
        federation, lineage, device, to_text(root), to_text(sealing), token.hex(), expires, version, host, port,
        lobby_port, bool(flags & _TLS), login,
    )  # fmt: skip
    _check(code)
    return code


def check_device(name: str, place: str) -> None:
    """That a device may be called so; `place` says where the name stands. Raises `ConfigError`.

    A name that begins with a hyphen would be taken for an option on every command line.
    """
    if not re.fullmatch(NAME, name) or name.startswith("-"):
        raise ConfigError(f"{place}: a device needs a name of [a-z0-9_-]{{1,64}} that does not begin with a hyphen")


def _check(code: JoinCode) -> None:
    for what, name in (("federation", code.federation), ("lineage", code.lineage), ("device", code.device)):
        if not re.fullmatch(NAME, name) and (name or what != "device"):
            raise ConfigError(f"join code: {what} {name!r} is no name of {NAME}")
    if not re.fullmatch(HOST, code.host):
        raise ConfigError(f"join code: broker {code.host!r} is no address of {HOST}")
    for port in (code.port, code.lobby_port):
        if not 1 <= port <= 65535:
            raise ConfigError(f"join code: port {port} of the broker is none from 1 to 65535")
    for what, key in (("root", code.root), ("aggregator", code.sealing)):
        if not _is_key(key):
            raise ConfigError(f"join code: the key of the {what} is not 32 bytes in base64url, but {key!r}")
    if not re.fullmatch("[0-9a-f]{32}", code.token):
        raise ConfigError("join code: its token is not 16 bytes in hexadecimal")


def _is_key(text: str) -> bool:
    try:
        return len(from_text(text)) == 32
    except Refused:
        return False


def _texts(content: bytes) -> list[str]:
    """Four texts, each after its length in one byte. Raises `ValueError`."""
    found = []
    for _ in range(4):
        length, content = content[0] if content else 0, content[1:]
        if length > len(content):
            raise ValueError
        found.append(content[:length].decode("ascii"))
        content = content[length:]
    if content:
        raise ValueError
    return found


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + content).digest()[:_CHECKSUM_BYTES]


def _encode(raw: bytes) -> str:
    """Two bytes, big-endian, to three digits, the lowest first; a last single byte to two (RFC 9285, 4)."""
    digits = []
    for start in range(0, len(raw), 2):
        pair = raw[start : start + 2]
        number = int.from_bytes(pair)
        for _ in range(len(pair) + 1):
            number, digit = divmod(number, len(DIGITS))
            digits.append(DIGITS[digit])
    return "".join(digits)


def _decode(text: str) -> bytes:
    """The inverse of `_encode`. Raises `ConfigError`."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"join code: {len(text)} characters, no code has more than {MAX_CHARACTERS}; {_AGAIN}")
    if strange := next((character for character in text if character not in DIGITS), ""):
        raise ConfigError(f"join code: {strange!r} is in no join code; {_AGAIN}")
    raw = b""
    for start in range(0, len(text), 3):
        digits = text[start : start + 3]
        number = sum(DIGITS.index(digit) * len(DIGITS) ** place for place, digit in enumerate(digits))
        if len(digits) == 1 or number >= 256 ** (len(digits) - 1):
            raise ConfigError(f"join code: a character is wrong or missing; {_AGAIN}")
        raw += number.to_bytes(len(digits) - 1)
    return raw
