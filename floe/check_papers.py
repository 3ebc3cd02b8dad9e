"""The part of `floe check` that looks at federation.pub's witness, and at what logins get in with. Reads."""

from __future__ import annotations

import time
from pathlib import Path

from floe.anchor import check_witness, read_anchor
from floe.certificates import AUTHORITY, AUTHORITY_KEY, expires, key_of, load_authority, spki, tls_key
from floe.errors import KeyFileError
from floe.findings import Findings
from floe.identity import check_folder, read_private
from floe.papers import Papers, hashes
from floe.settings import Config

_KINDS = (".tls.pem", ".tls.crt", ".password")
_AGAIN = "restore it, or move it away: where it was made, another is made"


def check_enrolled(config: Config, state: Path, found: Findings) -> None:
    """federation.pub, and the witness in a state folder that it was there: one without the other stops a process."""
    path, witness = config.path(config.security.federation), state / "enrolled"
    if not found.has(witness):
        return
    with found.looking_at(witness, "witness of enrolment"):
        anchor = read_anchor(path)
        if anchor is None:
            raise KeyFileError(
                f"{path} is missing, and this folder was enrolled with it; bring it back: any member has it"
            )
        check_witness(path, state, anchor)


def check_logins(config: Config, folder: Path, found: Findings) -> None:
    """All that lies in a folder of papers: authority, keys, certificates, passwords; none need be there."""
    if config.mqtt.login == "shared" or not found.has(folder):
        return
    with found.looking_at(folder, "folder of logins"):
        check_folder(folder)
        hashes(folder)
    if found.has(folder / AUTHORITY_KEY):
        with found.looking_at(folder / AUTHORITY_KEY, "authority's key"):
            load_authority(folder)
    elif found.has(folder / AUTHORITY):
        _check_certificate(folder / AUTHORITY, None, found)
    names = {path.name.removesuffix(kind) for kind in _KINDS for path in found.files_in(folder, f"*{kind}")}
    for papers in (Papers(folder, name) for name in sorted(names)):
        if found.has(papers.password):
            with found.looking_at(papers.password, "password"):
                if not read_private(papers.password).decode(errors="replace").strip():
                    raise KeyFileError(f"empty; {_AGAIN}")
        if found.has(papers.key):
            with found.looking_at(papers.key, "TLS key"):
                tls_key(papers.key)
        if found.has(papers.certificate):
            _check_certificate(papers.certificate, papers.key, found)


def _check_certificate(path: Path, key: Path | None, found: Findings) -> None:
    with found.looking_at(path, "certificate"):
        try:
            pem = path.read_text(encoding="utf-8")
            public, end = key_of(pem), expires(pem)
        except ValueError:
            raise KeyFileError(f"not a certificate in PEM; {_AGAIN}") from None
        if key is not None and found.has(key) is False:
            found.damage(path, f"its key {key} is missing", _AGAIN)
        elif key is not None and not _is_of(public, key):
            found.damage(path, f"not the certificate of {key}", _AGAIN)
        if end < time.time():
            ended = time.strftime("%Y-%m-%d", time.gmtime(end))
            found.note(path, f"has expired on {ended}; another one comes from where the authority's key is")


def _is_of(public: bytes, key: Path) -> bool:
    try:
        return spki(tls_key(key)) == public
    except KeyFileError:
        return True  # the key has a finding of its own
