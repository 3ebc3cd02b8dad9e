"""What one login gets in at the broker with, as files of one folder: the authority, key and certificate, or password.

Fixed logins (`lineage.<lineage>`, `operator.<name>`, `broker`) lie in [security] access; a device's in its own state
folder, where a change of its signing keys leaves them. Where the authority's key is at hand (`ca.key`), certificates
are made, and renewed when a third of their time is left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from floe.access import Access, Tls
from floe.certificates import (
    AUTHORITY,
    AUTHORITY_KEY,
    SERVER_DAYS,
    Authority,
    belongs,
    client_certificate,
    key_of,
    needs_renewal,
    read_certificate,
    server_certificate,
    spki,
    tls_key,
)
from floe.errors import AccessError, KeyFileError
from floe.files import storing, write_atomically
from floe.identity import check_folder, present, read_private, write_private
from floe.logins import hash_of, is_hash, new_password
from floe.next_authority import authority_here
from floe.service import log
from floe.settings import Config, Mqtt
from floe.signing import to_text

SERVER, BROKER = "server", "broker"
HASHES = "passwords"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAKE = "`floe federation new` makes it, `floe federation login` for another machine"


@dataclass(frozen=True)
class Papers:
    """The files of `login` in `folder`. Raises `KeyFileError`, `StoreError`."""

    folder: Path
    login: str

    @property
    def key(self) -> Path:
        return self.folder / f"{self.login}.tls.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.login}.tls.crt"

    @property
    def authority(self) -> Path:
        """Who signs the broker's certificate, and maybe who did before."""
        return self.folder / AUTHORITY

    @property
    def password(self) -> Path:
        return self.folder / f"{self.login}.password"

    def access(self, mqtt: Mqtt) -> Access:
        """How this login gets in at the members' port. Raises `AccessError` for want of a certificate."""
        authority = self.authority if present(self.authority) else None
        if mqtt.login == "shared":
            return Access(mqtt.username, mqtt.password, Tls(authority) if mqtt.tls else None)
        check_folder(self.folder)
        if mqtt.login == "passwords":
            if not present(self.password):
                raise KeyFileError(f"{self.password}: no password of {self.login!r} here; {self._way_out}")
            return Access(self.login, read_private(self.password).decode().strip(), Tls(authority))
        if not self._is_whole():
            raise AccessError(
                "certificate",
                f"{self.certificate}: no certificate of {self.login!r} here that goes with its key; {self._way_out}",
            )
        return Access(tls=Tls(authority, certificate=self.certificate, key=self.key))

    def public(self, mqtt: Mqtt) -> tuple[str, str]:
        """What a card says of them: hash of the password, public key for TLS; made at their first use."""
        if mqtt.login == "passwords":
            return self.hash(), ""
        return "", to_text(self.public_key()) if mqtt.login == "certificates" else ""

    def public_key(self) -> bytes:
        """SPKI in DER of the key, which is made at its first use; a certificate of one before is of no use then."""
        if not present(self.key):
            with storing(self.certificate):
                self.certificate.unlink(missing_ok=True)
        return spki(tls_key(self.key))

    def hash(self) -> str:
        """The hash of the password, the same each time; made at its first use."""
        known = hashes(self.folder)
        if not present(self.password):
            write_private(self.password, new_password().encode() + b"\n")
            known.pop(self.login, None)
        if self.login not in known:
            known[self.login] = hash_of(read_private(self.password).decode().strip())
            text = "".join(f"{login}:{found}\n" for login, found in sorted(known.items()))
            write_atomically(self.folder / HASHES, text.encode())
        return known[self.login]

    def take(self, authority: str, certificate: str) -> bool:
        """Keep what the roster's head and our entry bring, PEM or ""; whether it is news."""
        news = self._take(self.authority, authority)
        if certificate and present(self.key) and belongs(certificate, self.login, self.public_key(), authority):
            news |= self._take(self.certificate, certificate)
        return news

    def renew(self, now: float) -> str:
        """Have a certificate that holds a while longer; what there is to tell, or "". `now`: unix seconds."""
        authority = authority_here(self.folder)
        if authority is None:
            return _ends_soon(self.certificate, now)
        if _holds(self.certificate, now) and belongs(
            _read(self.certificate), self.login, self.public_key(), authority.pem
        ):
            return ""
        pem = client_certificate(authority, self.login, self.public_key(), now, SERVER_DAYS)
        write_atomically(self.certificate, pem.encode())
        return f"{self.certificate}: made, until {_until(pem)}"

    def _is_whole(self) -> bool:
        if not (present(self.certificate) and present(self.key)):
            return False
        with suppress(ValueError):
            return key_of(_read(self.certificate)) == self.public_key()
        return False

    @property
    def _way_out(self) -> str:
        return "it comes when an operator lets the device in" if self.login.startswith("device.") else _MAKE

    @staticmethod
    def _take(path: Path, text: str) -> bool:
        if not text or (present(path) and _read(path) == text):
            return False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, text.encode())
        return True


def entrance(config: Config, login: str) -> Access:
    """How a fixed login gets in from this machine; its certificate is renewed first, where that is possible."""
    papers = Papers(config.path(config.security.access), login)
    if config.mqtt.login == "certificates" and (told := papers.renew(time.time())):
        log(told)
    return papers.access(config.mqtt)


def server_names(host: str, bind: str) -> list[str]:
    """What a broker is reached by: the address that its members know, the one that it listens on, this machine's."""
    return [host, *([] if bind in ("0.0.0.0", "::") else [bind]), *LOOPBACK]  # noqa: S104 (compared, not bound)


def renew_server(folder: Path, names: Sequence[str], now: float) -> str:
    """Have a broker's certificate for these host names and those that it had; what there is to tell, or "".

    Raises `ConfigError` for what is no name, `KeyFileError`, `StoreError`.
    """
    papers, authority = Papers(folder, SERVER), authority_here(folder)
    if authority is None:
        if not present(papers.certificate):
            raise KeyFileError(f"{papers.certificate}: the broker has no certificate here; {_MAKE}")
        return _ends_soon(papers.certificate, now)
    wanted, there = list(dict.fromkeys(name.lower() for name in names)), _names(papers.certificate)
    fresh = _holds(papers.certificate, now) and set(wanted) <= set(there)
    if fresh and _issued_by(papers.certificate, authority):
        return ""
    pem = server_certificate(authority, tls_key(papers.key).public_key(), list(dict.fromkeys([*wanted, *there])), now)
    write_atomically(papers.certificate, pem.encode())
    return f"{papers.certificate}: made for {', '.join(_names(papers.certificate))}, until {_until(pem)}"


def hashes(folder: Path) -> dict[str, str]:
    """The hashes of passwords by login, as a file of Mosquitto's has them. Raises `KeyFileError`."""
    path = folder / HASHES
    if not present(path):
        return {}
    found: Mapping[str, str] = dict(line.partition(":")[::2] for line in _read(path).splitlines())
    if not all(is_hash(one) for one in found.values()):
        raise KeyFileError(f"{path}: not `login:hash` a line as Floe writes them; remove it, and the passwords")
    return dict(found)


def logins_here(folder: Path) -> list[str]:
    """The logins whose certificates lie in a folder."""
    return sorted(path.name.removesuffix(".tls.crt") for path in folder.glob("*.tls.crt"))


def lobby(mqtt: Mqtt) -> tuple[Mqtt, Access | None]:
    """Where those ask who have no login. TLS there is not verified: the request is sealed, and the reply signed."""
    if not mqtt.lobby_port:
        return mqtt, None
    return msgspec.structs.replace(mqtt, port=mqtt.lobby_port), Access(tls=Tls(verify=False) if mqtt.tls else None)


def _holds(path: Path, now: float) -> bool:
    with suppress(ValueError):
        return present(path) and not needs_renewal(_read(path), now)
    return False


def _ends_soon(path: Path, now: float) -> str:
    if not present(path) or _holds(path, now):
        return ""
    with suppress(ValueError):
        return (
            f"warning: {path} ends on {_until(_read(path))}, and {AUTHORITY_KEY} is not here to renew it: make a new "
            "one with `floe federation login` where it is"
        )
    return f"warning: {path}: no certificate in PEM"


def _issued_by(path: Path, authority: Authority) -> bool:
    try:
        read_certificate(_read(path)).verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(path: Path) -> list[str]:
    try:
        names = read_certificate(_read(path)).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, KeyFileError, x509.ExtensionNotFound):
        return []
    return [str(name.value) for name in names]


def _until(pem: str) -> str:
    return f"{read_certificate(pem).not_valid_after_utc.astimezone(UTC):%Y-%m-%d}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8"
        raise KeyFileError(f"{path}: cannot be read: {cause}; restore it, or move it away and start again") from None
