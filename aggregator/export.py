"""A global model in another format. Reads one model file, writes another; imports torch for `.pt` alone."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from floe import weights
from floe.errors import ConfigError, DataError
from floe.files import replacing


def _copy(path: Path, out: Path) -> None:
    with path.open("rb") as source, replacing(out) as file:
        shutil.copyfileobj(source, file)


def _npz(path: Path, out: Path) -> None:
    # Not numpy.savez: there a tensor named "file" would be taken for its argument.
    with replacing(out) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in weights.read(path).items():
            _check_name(name)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def _check_name(name: str) -> None:
    """A device named it: where the archive is unpacked it must not leave the folder."""
    if not name.isprintable() or "\\" in name or {"", ".", ".."} & set(name.split("/")):
        raise DataError(f"tensor {name!r} cannot name a file in an archive: export to .safetensors")


def _state_dict(path: Path, out: Path) -> None:
    try:
        import torch
    except ImportError:
        raise ConfigError(f"--to {out}: .pt needs torch: pip install 'floe[edge]', or take .npz") from None
    arrays = {name: array for name, array in weights.read(path).items() if not name.startswith("scaling.")}
    with replacing(out) as file:
        torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, file)


WRITERS: dict[str, Callable[[Path, Path], None]] = {".safetensors": _copy, ".npz": _npz, ".pt": _state_dict}
