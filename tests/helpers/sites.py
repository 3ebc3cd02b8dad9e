"""Small data of five sites, divided over devices by `floe data split`, in each of its ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from edge_client.data import folder as feature_folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from floe.cli import floe
from floe.schema import Schema
from helpers.pairs import DEVICES

COLUMNS = ("site", "b", "c", "d", "e", "f", "g", "h")
TRAIN, TEST = 200, 60
OPTIONS = {"column": ("--by", "site")}
FILES = ("Boiler Room", "line-7", "Halle_3", "sensor.2024", "Küche")


def rows(site: int | None, seed: int) -> Features:
    """Two classes apart from each other, at five sites, or all at one."""
    rng = np.random.default_rng(seed)
    count = TRAIN + TEST if site is None else (TRAIN + TEST) // DEVICES
    y = np.arange(count) % 2
    x = (rng.normal(size=(count, len(COLUMNS))) + y[:, None]).astype(np.float32)
    x[:, 0] = np.arange(count) // 2 % DEVICES if site is None else site
    train = count * TRAIN // (TRAIN + TEST)
    return Features(x[:train], y[:train], x[train:], y[train:], Schema((len(COLUMNS),), 2, COLUMNS))


def divided(root: Path, partition: str) -> list[str]:
    """Write data to `root`, have it divided into `root/features`; the devices."""
    source, natural = root / "source", partition == "natural"
    if natural:
        source.mkdir()
        for site, name in enumerate(FILES):
            part = rows(site, site)
            arrays = {key: getattr(part, key) for key in ("train_x", "train_y", "test_x", "test_y")}
            np.savez(source / f"{name}.npz", **arrays)
    else:
        whole = rows(None, 0)
        feature_folder.write(source, whole, Document(schema=whole.schema))
    clients = () if natural else ("--clients", str(DEVICES))
    told = ("--data", str(source), "--out", str(root / "features"), "--partition", partition)
    result = CliRunner().invoke(floe, ["data", "split", *told, *clients, *OPTIONS.get(partition, ())])
    assert result.exit_code == 0, result.output
    return sorted(path.name for path in (root / "features").iterdir())
