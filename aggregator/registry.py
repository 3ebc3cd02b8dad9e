"""The models on disk and their transfers: `models/global/<round>.safetensors`, `models/devices/<id>.safetensors`.

A file here is readable by anything that reads safetensors. What is published stands sealed in the state folder, so
that a restart serves the same transfer again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floe.files import storing, sync_folder
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import Base, Phase
from floe.parcel import Parcel, forget, pack, saved_parcels
from floe.signing import to_text

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


class Registry:
    """Where global models, devices' last uploads and published transfers are kept."""

    def __init__(self, models: Path, published: Path) -> None:
        self._models = models
        self._published = published
        with storing(published):
            published.mkdir(parents=True, exist_ok=True)
            (models / "devices").mkdir(parents=True, exist_ok=True)

    def path(self, phase: Phase) -> Path:
        """Where the model of a round stands; later epochs beside the first, not over it."""
        name = f"{phase.round}" if phase.epoch == 1 else f"{phase.epoch}-{phase.round}"
        return self._models / "global" / f"{name}.safetensors"

    def row(self, model: Model, phase: Phase, identity: Identity, *, devices: int, samples: int) -> dict[str, Any]:
        """The row of `models`; the signature covers lineage, epoch, round and hash."""
        text = signed_text(phase.lineage, phase.epoch, model.round, model.sha256)
        return {
            "lineage": phase.lineage,
            "epoch": phase.epoch,
            "round": model.round,
            "sha256": model.sha256,
            "file": str(model.path.relative_to(self._models)),
            "bytes": model.path.stat().st_size,
            "devices": devices,
            "samples": samples,
            "signature": to_text(identity.private.sign(text)),
        }

    def parcel(self, model: Model, phase: Phase, keyring: Keyring, federation: str, sender: str) -> Parcel:
        """The transfer of a model: what was published before, or sealed now. Older ones are removed."""
        found: Parcel | None = None
        for saved in saved_parcels(self._published):
            right = saved.core.base == model.sha256 and keyring.suite == saved.core.suite
            if found is None and right and saved.intact():
                found = saved
            else:
                forget(saved)
        return found or pack(
            self._published, model.path, "{}", keyring, federation=federation,
            phase=phase, kind="model", sender=sender, base=model.sha256, sync=False,
        )  # fmt: skip

    def keep_uploads(self, spool: Path, *, keep: bool) -> None:
        """Remove a phase's spool; if `keep`, its updates become each device's last upload."""
        if not spool.is_dir():
            return
        with storing(spool):
            for path in spool.glob("*.safetensors") if keep else []:
                path.replace(self._models / "devices" / path.name)
            shutil.rmtree(spool)
            sync_folder(self._models / "devices")


def base_of(parcel: Parcel | None) -> Base | None:
    """How a round document speaks of a model."""
    return None if parcel is None else Base(sha256=parcel.core.base, transfer=parcel.name)
