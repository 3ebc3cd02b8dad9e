"""The global model on its way in: from its manifest to a checked file. Publishes nothing; says what to ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from floe import weights
from floe.decode import decode_model
from floe.encoding import is_encoded
from floe.errors import Refused, StoreError
from floe.files import hash_of, set_aside, storing
from floe.keyring import Keyring
from floe.messages import Base, Manifest
from floe.parcel import Incoming
from floe.service import log
from floe.transfer import Ranges, check_core, name_of

REPAIR_S, LONGEST_S = 1.0, 30.0
STALLED_S = 10.0  # without a new chunk for so long, a model is not on its way


@dataclass
class _Pace:
    """When to ask again: doubling pauses, from the start after each progress."""

    due: float = 0.0
    pause: float = REPAIR_S

    def progress(self, now: float) -> None:
        self.due, self.pause = now + REPAIR_S, REPAIR_S

    def asked(self, now: float) -> None:
        self.due, self.pause = now + self.pause, min(self.pause * 2, LONGEST_S)


class Download:
    """The newest global model of one lineage, kept as `base.safetensors` in the device's state folder."""

    def __init__(self, state: Path, keyring: Keyring, lineage: str, max_bytes: int) -> None:
        self.path = state / "base.safetensors"
        self._part = state / "base.part"
        self._keyring = keyring
        self._lineage = lineage
        self._max_bytes = max_bytes
        self._incoming: Incoming | None = None
        self._transfer = ""
        self._pace = _Pace()
        self._progress_at = 0.0
        self._unusable = ("", "")
        self.sha256 = _hash_of_kept(self.path)

    def announce(self, manifest: Manifest, *, retained: bool, now: float, keep: str = "") -> None:
        """A manifest of a global model, already verified. Raises `Refused`.

        A retained one is from before we came: its chunks have gone by, so they are asked for at once. While the
        transfer `keep` is being received, another is not begun.
        """
        core = manifest.core
        if (core.kind, core.lineage, core.federation) != ("model", self._lineage, manifest.federation):
            raise Refused("not-for-us", f"a {core.kind} of {core.lineage!r}")
        if core.base == self.sha256 or name_of(core) == self._transfer or (keep and keep == self._transfer):
            return
        try:
            check_core(core, self._max_bytes)
            opener = self._keyring.open(core, manifest.envelope)
        except Refused as refusal:
            # Another group key is on its way in our entry, also under the same number if a restored aggregator lost it.
            if refusal.reason != "roster" and (refusal.reason, manifest.envelope.wrap) != ("unsealing", "group"):
                self._unusable = (core.base, str(refusal))
            raise
        self._drop()
        self._unusable = ("", "")
        self._incoming, self._transfer = Incoming(core, opener, self._part), name_of(core)
        self._incoming.resume()
        self._pace.progress(now)
        if retained:
            self._pace.due = now
        self._finish_if_complete()

    def add(self, transfer: str, index: int, sealed: bytes, now: float) -> bool:
        """One chunk; True when the model is whole and in its place. Raises `Refused`, `StoreError`."""
        if self._incoming is None or transfer != self._transfer:
            return False
        try:
            added = self._incoming.add(index, sealed)
        except Refused as refusal:
            if refusal.reason == "unsealing":  # what its maker signed does not open: no other chunk can mend that
                self._unusable = (self._incoming.core.base, str(refusal))
                self._drop()
            raise
        if added:
            self._pace.progress(now)
            self._progress_at = now
        return self._finish_if_complete()

    def wanted(self, base: Base, now: float) -> Ranges | None:
        """What to ask for now to get at `base`: ranges of chunks, none for its manifest. None: wait."""
        if base.sha256 == self.sha256 or now < self._pace.due:
            return None
        self._pace.asked(now)
        if self._incoming is None or self._transfer != base.transfer:
            return ()
        return self._incoming.assembly.missing()

    def has_begun(self, base: Base, now: float) -> bool:
        """Whether a model is here, or on its way and lately came nearer."""
        on_its_way = self._transfer == base.transfer and now < self._progress_at + STALLED_S
        return base.sha256 == self.sha256 or (on_its_way and bool(self._incoming and self._incoming.assembly.have))

    def fault(self, base: Base | None) -> str:
        """Why a base cannot be had, however often it is asked for; empty if it can."""
        return self._unusable[1] if base is not None and base.sha256 == self._unusable[0] else ""

    def open(self) -> BinaryIO:
        """The model, to be read by whoever asked although a newer one takes its place. Raises `StoreError`."""
        try:
            return self.path.open("rb")
        except OSError as error:
            self.sha256 = ""
            raise StoreError(f"{self.path}: {error.strerror or error}; the model is fetched again") from None

    def hurry(self) -> None:
        """The link is back: what was sent meanwhile has gone by."""
        self._pace = _Pace()

    def _finish_if_complete(self) -> bool:
        if self._incoming is None or not self._incoming.assembly.complete:
            return False
        incoming = self._incoming
        try:
            sha256 = incoming.finish()
            if sha256 != incoming.core.base and is_encoded(incoming.path):
                sha256 = decode_model(incoming.path, incoming.path, self._max_bytes)
            if sha256 != incoming.core.base:
                raise Refused(
                    "weights", f"the model has hash {sha256[:12]}, its manifest says {incoming.core.base[:12]}"
                )
            weights.check_numbers(incoming.path)
            with storing(self.path):
                self.path.unlink(missing_ok=True)  # replaced in one step, ext4 would write it all out first
            incoming.move(self.path)
            self.sha256 = sha256
        except Refused as refusal:
            self._unusable = (incoming.core.base, str(refusal))
            raise
        finally:
            self._drop()
        return True

    def _drop(self) -> None:
        if self._incoming is not None:
            self._incoming.remove()
        self._incoming, self._transfer = None, ""


def _hash_of_kept(path: Path) -> str:
    try:
        return hash_of(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        aside = f"set aside as {set_aside(path).name}, the model is fetched again"
        log(f"warning: {path}: {error.strerror or error}; {aside}")
        return ""
