"""What one signature and one seal cost here: microseconds of processor time, and bytes on the wire."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from floe.hpke import open_with, seal_to, sealing_text
from floe.identity import load_sealing_key, new_identity
from floe.seal import KEY_BYTES
from floe.signing import Algorithm, verify_bytes

MESSAGE_BYTES = 2048  # about a manifest of a model of 1 MB
TRIES = 200


def primitives() -> dict[str, Any]:
    """Signatures by algorithm, over a message of `MESSAGE_BYTES`, and HPKE of a key; medians of `TRIES`."""
    message = os.urandom(MESSAGE_BYTES)
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as name:
        signatures = [_signature(Path(name), algorithm, message) for algorithm in get_args(Algorithm)]
        private, plain = load_sealing_key(Path(name), "sealing"), os.urandom(KEY_BYTES)
    recipient = sealing_text(private.public_key())
    sealed = seal_to(recipient, plain, message)
    hpke = {
        "seal_us": _microseconds(lambda: seal_to(recipient, plain, message)),
        "open_us": _microseconds(lambda: open_with(private, sealed, message)),
        "bytes": len(sealed),
    }
    return {"signatures": signatures, "hpke": hpke}


def _signature(folder: Path, algorithm: Algorithm, message: bytes) -> dict[str, Any]:
    identity = new_identity(folder / f"{algorithm}.pem", algorithm, algorithm)
    signed = identity.sign_bytes(message)
    return {
        "algorithm": algorithm,
        "sign_us": _microseconds(lambda: identity.sign_bytes(message)),
        "verify_us": _microseconds(lambda: verify_bytes(signed, identity.key, message)),
        "signature_characters": len(signed),
        "key_characters": len(identity.key),
    }


def _microseconds(call: Callable[[], object]) -> float:
    def once() -> float:
        before = time.process_time()
        call()
        return time.process_time() - before

    return statistics.median(once() for _ in range(TRIES)) * 1e6
