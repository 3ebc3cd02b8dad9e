"""What `floe demo` writes before anything runs: the run's folder, its floe.toml, its secret.key. Looks at features."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from demo.presets import PRESETS
from floe.config import FILE, load, variable
from floe.errors import ConfigError, DataError
from floe.files import storing, write_atomically
from floe.identity import new_secret
from floe.partitions import ALPHA, WITH_ALPHA, check
from floe.plan import Plan
from floe.settings import Config
from floe.topics import NAME

CLIENTS = 3
TABULAR = Plan(model="autoencoder", learning_rate=0.01)
CLASSES = Plan(model="mlp", learning_rate=0.01)


@dataclass(frozen=True)
class Settings:
    """What the user of the demo chose; None where the default is wanted. Raises `DataError` for what does not fit."""

    source: str
    clients: int | None
    rounds: int
    partition: str
    alpha: float | None
    rows: int | None
    seed: int
    model: str | None
    report: str
    suite: str
    shared_key: bool = False
    by: str | None = None

    def __post_init__(self) -> None:
        check(self.partition, self.alpha, self.by)

    @property
    def enrols(self) -> bool:
        """Whether devices are enrolled; otherwise they share a key, or have none."""
        return not self.shared_key and self.suite not in ("fernet", "plaintext")

    @property
    def data(self) -> str:
        """The data as `floe data split --data` finds it from any folder."""
        return self.source if self.source in PRESETS else str(Path(self.source).expanduser().absolute())

    @property
    def name(self) -> str:
        """The data as a person calls it."""
        return self.source if self.source in PRESETS else Path(self.data).name

    @property
    def title(self) -> str:
        """One line that says what is run."""
        how = f"by {self.by}" if self.by else self.partition
        how += f" {ALPHA if self.alpha is None else self.alpha:g}" if self.partition in WITH_ALPHA else ""
        return f"floe demo: {self.name}, {how}, {self.rounds} rounds, seed {self.seed}"

    def split_arguments(self, clients: int) -> list[str]:
        """The `floe data split` that divides the data over devices, into features/."""
        given = {"data": self.data, "clients": clients, "partition": self.partition, "alpha": self.alpha}
        given |= {"by": self.by, "seed": self.seed, "out": "features", "rows": self.rows}
        words = ((f"--{key}", str(value)) for key, value in given.items() if value is not None)
        return ["data", "split", *(word for pair in words for word in pair)]


@contextmanager
def run_folder(out: Path | None, settings: Settings) -> Iterator[Path]:
    """An empty folder for the run, absolute: `out`, or runs/<data>-<date>-<time>. Raises `ConfigError`, `StoreError`.

    A block that ends with `ConfigError` or `DataError` leaves nothing behind: its message says it all.
    """
    folder = out or Path("runs") / f"{settings.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    was_there = folder.exists()
    with storing(folder):
        if was_there and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"--out {folder}: not an empty folder; every run has one of its own")
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder.absolute()
    except (ConfigError, DataError):
        shutil.rmtree(folder, ignore_errors=True)
        if was_there:
            folder.mkdir()
        elif out is None:
            with suppress(OSError):  # other runs are in it
                folder.parent.rmdir()
        raise


def own_devices(settings: Settings) -> dict[str, Path]:
    """The devices that a folder brings: sub-folders with features, by name; empty if the data is to be divided.

    Raises `DataError` if there are fewer than asked for, or a name cannot be a device's.
    """
    root = Path(settings.data)
    if settings.source in PRESETS or not root.is_dir():
        return {}
    found = {path.parent.name: path.parent for path in sorted(root.glob("*/train_x.npy"))}
    for name in found:
        if not re.fullmatch(NAME, name):
            raise DataError(f"{root / name}: a device needs a name of [a-z0-9_-], at most 64; rename the folder")
    if found and settings.clients is not None and settings.clients > len(found):
        raise DataError(f"{root}: holds {len(found)} devices, --clients asks for {settings.clients}")
    return dict(list(found.items())[: settings.clients])


def plan_for(settings: Settings, features: Path) -> Plan:
    """The training plan: the data set's own, or one that fits the features of a device. Raises `DataError`."""
    plan = PRESETS[settings.source] if settings.source in PRESETS else _fitting(features)
    if settings.model and settings.model != plan.model:
        plan = msgspec.structs.replace(plan, model=settings.model, hidden=())
    return msgspec.structs.replace(plan, report=settings.report, seed=settings.seed)


def decided(settings: Settings, port: int, devices: int) -> dict[str, dict[str, Any]]:
    """What the demo settles for every process, by section and key; no variable of the environment overrides it."""
    plan = {"report": settings.report, "seed": settings.seed}
    return {
        "mqtt": {"host": "127.0.0.1", "port": port},
        "broker": {"bind": "127.0.0.1"},
        "security": {"suite": settings.suite, "secret_key": "secret.key", "federation": "federation.pub"},
        "paths": {"state": "state", "models": "models", "log": "log"},
        "rounds": {"count": settings.rounds, "devices": devices, "quorum": 0, "members": [], "initial": ""},
        # One thread each: devices share the cores, and sums in another order would give other weights.
        "device": {"threads": 1, "report": "weights"},
        "plan": plan | ({"model": settings.model} if settings.model else {}),
    }


def environment(values: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the processes: ours, less what would override `values`; FLOE_DATA made absolute."""
    taken = {variable(section, key) for section, keys in values.items() for key in keys} | {"FLOE_CONFIG"}
    kept = {name: value for name, value in environ.items() if name not in taken}
    if kept.get("FLOE_DATA"):
        kept["FLOE_DATA"] = str(Path(kept["FLOE_DATA"]).absolute())
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **kept}


def write(folder: Path, values: Mapping[str, Mapping[str, Any]], plan: Plan, environ: Mapping[str, str]) -> Config:
    """Write floe.toml; the configuration that every process reads from it. Raises `ConfigError`, `StoreError`."""
    whole = {**values, "plan": msgspec.to_builtins(plan)}
    text = _HEAD + "".join(
        f"\n[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for section, keys in whole.items()
    )
    write_atomically(folder / FILE, text.encode())
    return load(environ=environ, file=folder / FILE)


def write_key(folder: Path, settings: Settings) -> None:
    """A secret.key for a run whose devices share one."""
    if not settings.enrols and settings.suite != "plaintext":
        new_secret(folder / "secret.key")


def _fitting(features: Path) -> Plan:
    try:
        shape = np.load(features / "train_x.npy", mmap_mode="r", allow_pickle=False).shape
        labels = [np.load(features / f"{part}_y.npy", allow_pickle=False) for part in ("train", "test")]
    except (OSError, ValueError) as error:
        raise DataError(f"{features}: cannot be read as features: {error}") from None
    if len(shape) > 2:
        return PRESETS["digits"]
    return TABULAR if max(int(y.max(initial=0)) for y in labels) < 2 else CLASSES


_HEAD = """\
# Written by `floe demo`; `floe init --print` explains every key. To go on by hand, in this folder:
#   floe broker
#   floe aggregator --rounds N
#   floe client --id device-1 --data features/device-1        (one for each device)
"""
