"""The models on disk and their transfers: `models/global/<round>.safetensors`, `models/devices/<id>.safetensors`.

A file here is readable by anything that reads safetensors. What is published stands sealed in the state folder, so
that a restart serves the same transfer again.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregator.log import Log
from floe.decode import decode_model
from floe.encode import encode_model
from floe.encoding import is_encoded
from floe.errors import KeyFileError, Refused, StoreError
from floe.files import fault_of, set_aside, storing
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import Base, Phase
from floe.parcel import Parcel, forget, open_parcel, pack, saved_parcels
from floe.signing import verify_bytes
from floe.store import durably

MODEL_DOMAIN = b"floe-v1 model\n"


@dataclass(frozen=True)
class Model:
    """A global model: its file, and the SHA-256 of it."""

    round: int
    path: Path
    sha256: str


def signed_text(lineage: str, epoch: int, round: int, sha256: str) -> bytes:
    """The bytes that an aggregator signs for a global model: `models.signature`."""
    return MODEL_DOMAIN + f"{lineage}\n{epoch}\n{round}\n{sha256}".encode()


def is_signed(row: Mapping[str, Any], key: str) -> bool:
    """Whether the signature in a row of `models` is that of this key."""
    try:
        text = signed_text(row["lineage"], row["epoch"], row["round"], row["sha256"])
        verify_bytes(row["signature"], key, text)
    except Refused:
        return False
    return True


def sign_anew(log: Log, lineage: str, old: Identity, new: Identity) -> None:
    """Another key takes the old one's place under all models that the old one signed; again, after a kill."""
    rows = log.db.query("SELECT * FROM models WHERE lineage = ?", [lineage])
    signed = [
        (_signature(row, new), row["lineage"], row["epoch"], row["round"]) for row in rows if is_signed(row, old.key)
    ]
    with durably(log.db):
        log.db.conn.executemany("UPDATE models SET signature = ? WHERE (lineage, epoch, round) = (?, ?, ?)", signed)


def _signature(row: Mapping[str, Any], identity: Identity) -> str:
    return identity.sign_bytes(signed_text(row["lineage"], row["epoch"], row["round"], row["sha256"]))


class Registry:
    """Where global models, devices' last uploads and published transfers are kept; `tell` is told what is set aside."""

    def __init__(self, models: Path, published: Path, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._models = models
        self._published = published
        self._saved: list[Parcel] | None = None  # what of `published` this process has looked at
        with storing(published):
            published.mkdir(parents=True, exist_ok=True)
            (models / "devices").mkdir(parents=True, exist_ok=True)

    def path(self, phase: Phase) -> Path:
        """Where the model of a round stands; later epochs beside the first, not over it."""
        name = f"{phase.round}" if phase.epoch == 1 else f"{phase.epoch}-{phase.round}"
        return self._models / "global" / f"{name}.safetensors"

    def check_age(self, epoch: int, round: int, log: Path) -> None:
        """A log that was restored from an older copy, or has lost its end, must not make its rounds' models again.

        Raises `StoreError` if there are models of which a log that ends with this round cannot know.
        """
        places = {path.name: _place(path.name) for path in (self._models / "global").glob("*.safetensors")}
        newer = sorted((name for name, place in places.items() if place > (epoch, round)), key=lambda n: places[n])
        if newer:
            several = f" to {newer[-1]}" if len(newer) > 1 else ""
            raise StoreError(
                f"{log}: older than the models {newer[0]}{several} in {self._models / 'global'}, which it does not "
                "know: it is a copy, or has lost its end. Restore the newer log (floe.sqlite with -wal and -shm); or, "
                "to go on from its last round, move these models away, and the state folder's `published`"
            )

    def check(self, row: Mapping[str, Any], identity: Identity) -> None:
        """Whether the model of a row of the log is there, is this one, and was signed by us. Raises `Refused`."""
        path = self._models / row["file"]
        if not is_signed(row, identity.key):
            raise Refused("signature", f"{path}: another key than this aggregator's has signed it")
        if fault := fault_of(path, row["sha256"], row["bytes"]):
            raise Refused("storage", f"{path}: {fault}; restore it from a backup, or choose another model")

    def load(self, row: Mapping[str, Any], identity: Identity) -> Model:
        """The model of a row of the log; one that the disk has damaged is made again from its published transfer.

        Raises `KeyFileError` if another key has signed it, `StoreError` if it cannot be made again.
        """
        path = self._models / row["file"]
        if not is_signed(row, identity.key):
            raise KeyFileError(
                f"the key of {identity.name!r} in {self._published.parent / 'keys'} is not the one that signed {path}: "
                "devices trust that one; restore it from a backup"
            )
        if fault := fault_of(path, row["sha256"], row["bytes"]):
            aside = f"; set aside as {set_aside(path).name}" if os.path.lexists(path) else ""
            self._tell(f"{path}: {fault}{aside}")
            if not self._recover(row["sha256"], path, row["bytes"]):
                raise StoreError(f"{path}: {fault}; restore it from a backup, then start again")
            self._tell(f"{path}: made again from the transfer that was published")
        return Model(row["round"], path, row["sha256"])

    def row(self, model: Model, phase: Phase, identity: Identity, *, devices: int, samples: int) -> dict[str, Any]:
        """The row of `models`; the signature covers lineage, epoch, round and hash."""
        row = {
            "lineage": phase.lineage,
            "epoch": phase.epoch,
            "round": model.round,
            "sha256": model.sha256,
            "file": str(model.path.relative_to(self._models)),
            "bytes": model.path.stat().st_size,
            "devices": devices,
            "samples": samples,
        }
        return row | {"signature": _signature(row, identity)}

    def parcel(
        self, model: Model, phase: Phase, keyring: Keyring, *, federation: str, sender: str, keep: int,
        half: bool = False,
    ) -> Parcel:  # fmt: skip
        """The transfer of a model: what was published before, or sealed now. At most `keep` older ones stay.

        `half`: it carries the model encoded, what of it is float16 as that (`floe.encode`).
        Not synced: after a power cut it is there whole, or is sealed anew.
        """
        saved = saved_parcels(self._published, self._tell) if self._saved is None else self._saved
        wanted = (model.sha256, phase.epoch, keyring.suite_for("model"))  # of an epoch that is over none is taken
        of_model = [p for p in saved if (p.core.base, p.core.epoch, p.core.suite) == wanted]
        others = [p for p in saved if p not in of_model[:1]]
        gone = max(len(others) - keep, 0)
        for old in others[:gone]:
            forget(old)
        newest = of_model[0] if of_model else self._sealed(
            model, half, keyring, federation=federation, phase=phase, sender=sender
        )  # fmt: skip
        self._saved = [*others[gone:], newest]
        return newest

    def _sealed(
        self, model: Model, half: bool, keyring: Keyring, *, federation: str, phase: Phase, sender: str
    ) -> Parcel:
        source = model.path
        if half:
            source = self._published / ".encoded.part"
            encode_model(model.path, source)
        sealed = pack(
            self._published, source, "{}", keyring, federation=federation,
            phase=phase, kind="model", sender=sender, base=model.sha256, sync=False,
        )  # fmt: skip
        if half:
            source.unlink()
        return sealed

    def _recover(self, sha256: str, out: Path, size: int) -> bool:
        for saved in saved_parcels(self._published, self._tell):
            if saved.core.base == sha256:
                opened = open_parcel(saved, out)
                return (decode_model(out, out, size) if is_encoded(out) else opened) == sha256
        return False

    def keep_uploads(self, spool: Path, *, keep: bool) -> None:
        """Remove a phase's spool; if `keep`, its updates become each device's last upload."""
        if not spool.is_dir():
            return
        with storing(spool):
            for path in sorted(spool.glob("*.safetensors"), key=_round_of) if keep else []:
                path.replace(self._models / "devices" / f"{path.stem.partition('@')[0]}.safetensors")
            shutil.rmtree(spool)


def _place(name: str) -> tuple[int, int]:
    """Epoch and round of a model by the name of its file; below all others for a name that is none."""
    found = re.fullmatch(r"(?:([1-9][0-9]{0,9})-)?([0-9]{1,10})\.safetensors", name)
    return (int(found[1] or 1), int(found[2])) if found else (0, 0)


def _round_of(spooled: Path) -> float:
    """The round of a late update, by the name of its file; those that are not late come last."""
    late = spooled.stem.partition("@")[2]
    return int(late) if late else math.inf


def base_of(parcel: Parcel | None) -> Base | None:
    """How a round document speaks of a model."""
    return None if parcel is None else Base(sha256=parcel.core.base, transfer=parcel.name)
