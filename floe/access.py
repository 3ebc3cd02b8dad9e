"""How a session gets in at a broker: login, TLS, and why it did not. Reads certificates and keys; opens sockets to ask.

With TLS 1.3 a client learns only after its own handshake that its certificate is refused, and often not even then: the
broker closes while our CONNECT is under way, which throws its alert away (RFC 8446, 4.4.2.4 and 6.2). So the cause of a
lost connection is asked for by a second one, which says nothing and listens.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from floe.errors import AccessError, KeyFileError
from floe.identity import read_private
from floe.settings import Mqtt

PROBE_S = 2.0
# Not of TLS, too old, or without a cipher in common. Other alerts may pass: a broker that is short of something.
_NO_TLS = {"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"} | {
    "SSLV3_ALERT_HANDSHAKE_FAILURE"
}


class _Socket(ssl.SSLSocket):
    """Closed when its handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True)
class Tls:
    """Whom to believe, and what we show. Files in PEM.

    `authority`: who signed the broker's certificate; None: those that the system trusts. `verify` False: whoever
    answers is believed, for the lobby, where nothing depends on the broker. `certificate` and `key`: ours, or neither.
    """

    authority: Path | None = None
    verify: bool = True
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For new connections, TLS 1.2 (RFC 5246) or 1.3 (RFC 8446). Raises `KeyFileError`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and name
        context.sslsocket_class = _Socket
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif self.authority is None:
            context.load_default_certs()
        self.show(context)
        return context

    def show(self, context: ssl.SSLContext) -> None:
        """Read authority, certificate and key, if any, again: what was renewed counts from the next connection on.

        Raises `KeyFileError`; the context keeps what it had.
        """
        if self.verify and self.authority is not None:
            _believe(context, self.authority)
        if self.certificate is not None and self.key is not None:
            _show(context, self.certificate, self.key)


@dataclass(frozen=True)
class Access:
    """Login and TLS of one session. Without `tls` in clear; without `username` anonymous, or as a certificate says."""

    username: str = ""
    password: str = ""
    tls: Tls | None = None


def access_of(mqtt: Mqtt) -> Access:
    """What [mqtt] alone says: its login, and with TLS the authorities that the system trusts."""
    return Access(mqtt.username, mqtt.password, Tls() if mqtt.tls else None)


def why(host: str, port: int, tls: Tls | None, context: ssl.SSLContext | None) -> AccessError | None:
    """Why a broker that takes connections has not answered; None if certificates and TLS do not explain it.

    `context`: of `tls`, as it was when the connection was lost. Opens another one, for at most some seconds.
    """
    try:
        if tls is None or context is None:
            return _why_not_in_clear(host, port)
        return _why_not(host, port, tls, context)
    except OSError:
        return None


def explain(error: ssl.SSLError, host: str, port: int, tls: Tls) -> AccessError | None:
    """What an error of a handshake says of certificates; None for a connection that just ended."""
    place = f"the broker at {host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        believed = f"the authority in {tls.authority}" if tls.authority else "an authority that this system trusts"
        return AccessError(
            "server", f"{place}: its certificate does not verify ({reason}); needed is one by {believed}"
        )
    alert = (error.reason or "").replace("_", " ").lower()
    if error.reason in _NO_TLS:
        return AccessError("no-tls", f"{place} does not speak TLS as we do ({alert}); check [mqtt] port and tls")
    if not any(word in alert for word in ("alert certificate", "alert bad certificate", "alert unknown ca", "access")):
        return None
    if tls.certificate is None:
        return AccessError("certificate", f"{place} lets in nobody without a certificate, and we have none ({alert})")
    ours = f"our certificate {tls.certificate}, {_validity(tls.certificate)}"
    return AccessError("certificate", f"{place} refuses {ours} ({alert})")


def _why_not(host: str, port: int, tls: Tls, context: ssl.SSLContext) -> AccessError | None:
    try:
        with (
            socket.create_connection((host, port), PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            secured.recv(1)
    except ssl.SSLError as error:
        return explain(error, host, port, tls)
    return None


def _why_not_in_clear(host: str, port: int) -> AccessError | None:
    context = Tls(verify=False).context()
    with socket.create_connection((host, port), PROBE_S) as plain:
        try:
            context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLError:
            return None
    return AccessError("tls-only", f"the broker at {host}:{port} speaks TLS, and we do not: set [mqtt] tls = true")


def _believe(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError:
        raise KeyFileError(f"{authority}: not a certificate in PEM; restore the authority's") from None
    except OSError as error:
        raise KeyFileError(f"{authority}: cannot be read: {error.strerror}; restore the authority's") from None


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    read_private(key)  # for its mode
    try:
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise KeyFileError(f"{certificate}: not the certificate of {key}; move it away, another is made") from None
        raise KeyFileError(f"{certificate} and {key}: not a certificate and its key in PEM; restore them") from None
    except OSError as error:
        raise KeyFileError(f"{certificate}: cannot be read: {error.strerror}; restore it") from None


def _validity(certificate: Path) -> str:
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return "which does not read"
    start, end = found.not_valid_before_utc, found.not_valid_after_utc
    words = "expired on" if end.timestamp() < time.time() else "valid until"
    early = (
        "" if start.timestamp() <= time.time() else f", not before {start:%Y-%m-%d} (is this machine's clock right?)"
    )
    return f"{words} {end:%Y-%m-%d}{early}"
