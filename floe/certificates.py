"""The federation's small certificate authority: X.509 (RFC 5280), EC P-256, SHA-256. Reads and writes key files.

One private authority signs the broker's certificate and those of its clients, whose common name is their login. Times
are unix seconds, handed in by the caller.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from floe.errors import ConfigError, KeyFileError, Refused
from floe.files import write_atomically
from floe.identity import present, read_private, write_private

AUTHORITY_DAYS, SERVER_DAYS, CLIENT_DAYS = 20 * 365, 397, 90
EARLY = timedelta(days=1)  # a client's clock may be that far behind
MAX_LOGIN = 64  # ub-common-name, RFC 5280, appendix A.1
AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\Z")


@dataclass(frozen=True)
class Authority:
    """Who signs certificates: its own certificate and its private key."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """Its certificate, for those who check what it signed."""
        return _pem(self.certificate)


def new_authority(folder: Path, federation: str, now: float) -> Authority:
    """Make `ca.pem` and `ca.key` (mode 0600) in `folder`, for 20 years. Raises `KeyFileError` if the key exists."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Floe CA of {federation}"[:MAX_LOGIN])
    start = datetime.fromtimestamp(now, UTC)
    usage = _usage(sign=False, certify=True)
    certificate = (
        _builder(name, private.public_key(), start, AUTHORITY_DAYS)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(private, SHA256())
    )
    if present(folder / AUTHORITY_KEY):
        raise KeyFileError(f"{folder / AUTHORITY_KEY}: exists already, and is never overwritten")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folder / AUTHORITY, _pem(certificate).encode())  # first: without the key there is no authority yet
    write_private(folder / AUTHORITY_KEY, _private_pem(private))
    return Authority(certificate, private)


def load_authority(folder: Path) -> Authority:
    """The authority whose `ca.pem` and `ca.key` lie in `folder`. Raises `KeyFileError`."""
    private, path = _load_key(folder / AUTHORITY_KEY), folder / AUTHORITY
    try:
        certificate = read_certificate(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}; restore it from a backup") from None
    except ValueError:
        raise KeyFileError(f"{path}: not a certificate in PEM; restore it from a backup") from None
    if certificate.public_key() != private.public_key():
        raise KeyFileError(f"{path}: not the certificate of {folder / AUTHORITY_KEY}; restore both from one backup")
    return Authority(certificate, private)


def tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key for TLS at `path` (PKCS #8, PEM, mode 0600), made at its first use. Raises `KeyFileError`."""
    if not present(path):
        write_private(path, _private_pem(ec.generate_private_key(ec.SECP256R1())))
    return _load_key(path)


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half as SubjectPublicKeyInfo in DER (RFC 5280, 4.1)."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def server_certificate(
    authority: Authority, public: ec.EllipticCurvePublicKey, names: Sequence[str], now: float
) -> str:
    """A broker's certificate in PEM, for 397 days: `names` are the host names and IP addresses it is reached by.

    Raises `ConfigError` for what is neither.
    """
    found = [_general_name(name) for name in dict.fromkeys(names)]
    return _signed(
        authority,
        _builder(_name("Floe broker"), public, datetime.fromtimestamp(now, UTC), SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(found), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False),
    )


def client_certificate(authority: Authority, login: str, public: bytes, now: float, days: int = CLIENT_DAYS) -> str:
    """A client's certificate in PEM, for so many days: its common name is `login`, `public` its SPKI in DER.

    Raises `Refused("malformed", ...)`: both come from a peer.
    """
    if not re.fullmatch(r"broker|[a-z]+\.[a-z0-9_-]+", login) or len(login) > MAX_LOGIN:
        raise Refused("malformed", f"{login!r}: no login for a certificate, which holds at most {MAX_LOGIN} characters")
    return _signed(
        authority,
        _builder(_name(login), _public(public), datetime.fromtimestamp(now, UTC), days).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        ),
    )


def read_certificate(pem: str) -> x509.Certificate:
    """The first certificate of a PEM text. Raises `ValueError` if there is none."""
    return x509.load_pem_x509_certificate(pem.encode())


def expires(pem: str) -> float:
    """When a certificate ends, unix seconds. Raises `ValueError` for what is none."""
    return read_certificate(pem).not_valid_after_utc.timestamp()


def needs_renewal(pem: str, now: float) -> bool:
    """Whether less than a third of a certificate's lifetime is left. Raises `ValueError` for what is none."""
    certificate = read_certificate(pem)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end.timestamp() - now < (end - start).total_seconds() / 3


def belongs(pem: str, login: str, public: bytes, authority: str) -> bool:
    """Whether a certificate is that of a login and its key, signed by the (first) authority of a PEM text.

    Its times are not looked at. What is no certificate, key or authority does not belong.
    """
    try:
        certificate = read_certificate(pem)
        certificate.verify_directly_issued_by(read_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return certificate.subject == _name(login) and public == key_of(pem)


def key_of(pem: str) -> bytes:
    """SPKI in DER of a certificate's key. Raises `ValueError` for what is no certificate."""
    public = read_certificate(pem).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signed(authority: Authority, builder: x509.CertificateBuilder) -> str:
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return _pem(
        builder.issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True, certify=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority.private, SHA256())
    )


def _builder(
    subject: x509.Name, public: ec.EllipticCurvePublicKey, start: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - EARLY)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        key_cert_sign=certify,
        crl_sign=certify,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _HOST.match(name):
        raise ConfigError(f"{name!r}: a broker's certificate holds IP addresses and host names ([A-Za-z0-9_.-])")
    return x509.DNSName(name.lower())


def _public(der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise Refused("malformed", f"{len(der)} bytes that are no public key (SPKI in DER)") from None
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        raise Refused("malformed", f"{type(key).__name__}: a client certificate is made for an EC P-256 key")
    return key


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    pem = read_private(path)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path}: not a private key in PEM; restore it from a backup, or move it away") from None
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)):
        raise KeyFileError(f"{path}: {type(key).__name__}, an EC P-256 key is needed")
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
