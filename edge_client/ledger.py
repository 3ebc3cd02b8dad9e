"""What a device has spent of its examples' privacy, and the key of its noise: `<state>/privacy/ledger.json`.

Key and account are one file, so that neither is left without the other: with the key lost the account is lost too, and
the noise is new. Who reads the key can take the noise away again, so the folder is its owner's alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import msgspec

from floe.errors import StoreError
from floe.files import storing, write_atomically
from floe.identity import check_folder


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """`steps` of DP-SGD with this noise over the clipping norm, each on a row with the probability `rate`."""

    noise: float
    rate: float
    steps: int


class _Kept(msgspec.Struct):
    key: str
    history: list[Spent] = []
    last: str = ""
    noise: dict[str, float] = {}


class _File(msgspec.Struct):
    check: str
    kept: msgspec.Raw


class Ledger:
    """The account of one state folder: over all that was trained there, whichever plan asked for it.

    `limit` is the most epsilon that the device spends, whatever a plan says; 0: as the plan says. Raises `StoreError`
    for one that is damaged, `KeyFileError` for a folder that lets others in.
    """

    def __init__(self, folder: Path, limit: float = 0.0) -> None:
        self.limit = limit
        self._path = folder / "ledger.json"
        check_folder(folder)
        try:
            self._kept = _read(self._path)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            cause = getattr(error, "strerror", None) or error
            raise StoreError(
                f"{self._path}: damaged ({cause}); restore it from a backup: an account that began at zero would not "
                "count what has left this device already"
            ) from None

    def key_of(self, work: str) -> bytes:
        """The key of the noise of some work (HMAC-SHA-256, RFC 2104): nobody else can tell it; 16 bytes."""
        return hmac.new(bytes.fromhex(self._kept.key), work.encode(), hashlib.sha256).digest()[:16]

    def noise(self, target: str) -> float:
        """The noise that was once found for a target; 0 if none was."""
        return self._kept.noise.get(target, 0.0)

    def after(self, work: str, spent: Spent) -> list[Spent]:
        """The account with some work in it. The last work, done again, gives the same bytes and costs nothing."""
        if work == self._kept.last:
            return self._kept.history
        *before, last = self._kept.history or [Spent(spent.noise, spent.rate, 0)]
        if (last.noise, last.rate) == (spent.noise, spent.rate):
            return [*before, Spent(spent.noise, spent.rate, last.steps + spent.steps)]
        return [*before, last, spent]

    def book(self, work: str, spent: Spent, target: str) -> None:
        """Count some work, and keep the noise of `target`. On disk when this returns. Raises `StoreError`."""
        if work == self._kept.last:
            return
        noise = self._kept.noise | {target: spent.noise}
        kept = _Kept(self._kept.key, self.after(work, spent), work, noise)
        data = msgspec.json.encode(kept)
        with storing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.parent.chmod(0o700)
        write_atomically(self._path, msgspec.json.encode(_File(hashlib.sha256(data).hexdigest(), msgspec.Raw(data))))
        self._kept = kept


def _read(path: Path) -> _Kept:
    if not os.path.lexists(path):
        return _Kept(secrets.token_hex(32))
    file = msgspec.json.decode(path.read_bytes(), type=_File)
    if file.check != hashlib.sha256(bytes(file.kept)).hexdigest():
        raise ValueError("it is not as it was written")
    return msgspec.json.decode(file.kept, type=_Kept)
