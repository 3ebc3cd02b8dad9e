"""The primitives as Floe calls them, against Wycheproof's vectors: what is valid is taken, what is invalid refused.

The files lie beside the real data (`FLOE_DATA/../vectors`) and are those of C2SP/wycheproof; see the README there.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_public_key
from helpers.hpke import seal

from floe.seal import _AEAD

Case = tuple[dict[str, Any], dict[str, Any]]
HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def cases(folder: Path, name: str) -> list[Case]:
    """Every test of a file with the group that it stands in."""
    path = folder / f"wycheproof_{name}.json.gz"
    if not path.is_file():
        pytest.skip(f"Wycheproof: no file {path}; FLOE_DATA names the folder beside which `vectors` lies")
    content = json.loads(gzip.decompress(path.read_bytes()))
    found = [(group, test) for group in content["testGroups"] for test in group["tests"]]
    assert len(found) == content["numberOfTests"]
    return found


def counts(checked: list[str]) -> dict[str, int]:
    return {result: checked.count(result) for result in sorted(set(checked))}


def raw(test: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(test[name]) for name in names]


@pytest.mark.parametrize(
    ("name", "suite", "expected"),
    [
        ("aes_gcm", "aes-256-gcm", {"invalid": 27, "valid": 39}),
        ("chacha20_poly1305", "chacha20-poly1305", {"invalid": 69, "valid": 256}),
    ],
)
def test_the_suites_of_chunks(vectors_folder: Path, name: str, suite: Any, expected: dict[str, int]) -> None:
    """AES with the keys and nonces that Floe has; ChaCha20-Poly1305 with nonces of a wrong size, too."""
    checked = []
    for group, test in cases(vectors_folder, name):
        if name == "aes_gcm" and (group["keySize"], group["ivSize"]) != (256, 96):
            continue
        key, nonce, data, plain, sealed, tag = raw(test, "key", "iv", "aad", "msg", "ct", "tag")
        cipher = _AEAD[suite](key)
        if test["result"] == "valid":
            assert cipher.decrypt(nonce, sealed + tag, data) == plain, test["tcId"]
            assert cipher.encrypt(nonce, plain, data) == sealed + tag, test["tcId"]
        else:
            with pytest.raises((InvalidTag, ValueError)):
                cipher.decrypt(nonce, sealed + tag, data)
        checked.append(test["result"])
    assert counts(checked) == expected


def test_ed25519(vectors_folder: Path) -> None:
    checked = []
    for group, test in cases(vectors_folder, "ed25519"):
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"]))
        message, signature = raw(test, "msg", "sig")
        if test["result"] == "valid":
            key.verify(signature, message)
        else:
            with pytest.raises(InvalidSignature):
                key.verify(signature, message)
        checked.append(test["result"])
    assert counts(checked) == {"invalid": 63, "valid": 88}


def test_rsa_2048_pss(vectors_folder: Path) -> None:
    checked = []
    for group, test in cases(vectors_folder, "rsa_pss_2048_sha256_mgf1_32"):
        key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        assert isinstance(key, RSAPublicKey)
        message, signature = raw(test, "msg", "sig")
        if test["result"] == "valid":
            key.verify(signature, message, PSS(MGF1(SHA256()), 32), SHA256())
        else:
            with pytest.raises(InvalidSignature):
                key.verify(signature, message, PSS(MGF1(SHA256()), 32), SHA256())
        checked.append(test["result"])
    assert counts(checked) == {"invalid": 45, "valid": 63}


def test_hkdf_sha256(vectors_folder: Path) -> None:
    checked = []
    for _, test in cases(vectors_folder, "hkdf_sha256"):
        secret, salt, info = raw(test, "ikm", "salt", "info")
        if test["result"] == "valid":
            assert HKDF(SHA256(), test["size"], salt, info).derive(secret).hex() == test["okm"], test["tcId"]
        else:
            with pytest.raises(ValueError, match="Cannot derive keys larger than"):
                HKDF(SHA256(), test["size"], salt, info)
        checked.append(test["result"])
    assert counts(checked) == {"invalid": 3, "valid": 83}


def test_x25519(vectors_folder: Path) -> None:
    """What is merely acceptable (twists, odd spellings) gives the agreed secret, and a secret of zeros is refused."""
    checked = []
    for _, test in cases(vectors_folder, "x25519"):
        private, public = raw(test, "private", "public")
        ours, theirs = X25519PrivateKey.from_private_bytes(private), X25519PublicKey.from_public_bytes(public)
        if "ZeroSharedSecret" in test["flags"]:
            with pytest.raises(ValueError, match="Error computing shared key"):
                ours.exchange(theirs)
            checked.append("zero")
        else:
            assert ours.exchange(theirs).hex() == test["shared"], test["tcId"]
            checked.append(test["result"])
    assert counts(checked) == {"acceptable": 223, "valid": 264, "zero": 31}


def test_hpke_refuses_every_point_of_low_order(vectors_folder: Path) -> None:
    """To such a key nothing is sealed, and what comes from one does not open, though its secret of zeros fits."""
    points = {
        bytes.fromhex(t["public"]) for _, t in cases(vectors_folder, "x25519") if "ZeroSharedSecret" in t["flags"]
    }
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    recipient = private.public_key().public_bytes_raw()
    for point in points:
        with pytest.raises(ValueError, match="Error computing shared key"):
            HPKE.encrypt(b"content key", X25519PublicKey.from_public_bytes(point), b"info")
        forged = seal(bytes(32), point, recipient, b"info", b"content key")
        with pytest.raises((ValueError, InvalidTag)):
            HPKE.decrypt(forged, private, b"info")
    assert len(points) == 14
