"""What a device is told to learn from (a folder, a file, an alias) -> its `Features`. Reads files, calls the alias.

Pickles are never read, sizes are judged before memory is taken (`arrays`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_client.data import folder, images
from edge_client.data.arrays import Raw, build, npz_names, read_npy, read_npz, to_x, to_y
from edge_client.data.features import Features, Labels
from edge_client.data.partition import stratified
from floe.errors import DataError

TEST_SHARE = 0.2
SEED = 0
WHOLE = ("train_x", "train_y", "test_x", "test_y")
KERAS = ("x_train", "y_train", "x_test", "y_test")
PAIRS = (("X", "y"), ("x", "y"))
ANOMALY = ("benign_train", "benign_test", "attack")


def load(source: str, aliases: Mapping[str, str], base: Path) -> Features:
    """The features that `source` names: an alias, or a path relative to `base`.

    A feature folder; an .npz with train_x, train_y, test_x, test_y (or x_train ...), with X and y (split 80/20 by
    class, fixed seed), or with benign_train, benign_test, attack (normal 0, anomaly 1); x.npy with y.npy beside it
    (x_*.npy with y_*.npy); a folder with MNIST's IDX files, CIFAR-10's binary batches, or train.npz and test.npz.
    Raises `DataError` naming the source.
    """
    if source in aliases:
        return _call(source, aliases[source], base)
    if not source:
        raise DataError('no data given: --data FOLDER, or data = "..." in [device] of floe.toml')
    path = base / Path(source).expanduser()
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except DataError as error:
        raise DataError(f"data {source!r}: {error}") from None


def _folder(path: Path) -> Features:
    if any((path / f"{name}.npy").is_file() for name in folder.ARRAYS):
        return folder.read(path)
    if images.is_mnist(path):
        return images.mnist(path)
    if images.is_cifar(path):
        return images.cifar(path)
    if (path / "train.npz").is_file() and (path / "test.npz").is_file():
        (train_x, train_y), (test_x, test_y) = _pair(path / "train.npz"), _pair(path / "test.npz")
        return build(to_x(train_x, "train.npz"), train_y, to_x(test_x, "test.npz"), test_y)
    raise DataError(
        f"{path}: no data found; expected train_x.npy, train_y.npy, test_x.npy, test_y.npy (from `floe prepare`), "
        "MNIST's IDX files, CIFAR-10's binary batches, or train.npz and test.npz"
    )


def _file(path: Path) -> Features:
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".npy" and (path.stem == "x" or path.stem.startswith("x_")):
        beside = path.with_name("y" + path.name[1:])
        return _split(read_npy(path), to_y(read_npy(beside), beside.name), path.name)
    if path.name.endswith((".csv", ".csv.gz")):
        raise DataError(f"{path}: a CSV becomes features with `floe prepare`; give the folder that it writes")
    raise DataError(f"{path}: expected a folder, an .npz, or x.npy (x_*.npy) with y.npy (y_*.npy) beside it")


def _npz(path: Path) -> Features:
    names = npz_names(path)
    for keys in (WHOLE, KERAS):
        if names.issuperset(keys):
            a, b, c, d = (read_npz(path, key) for key in keys)
            return build(to_x(a, keys[0]), to_y(b, keys[1]), to_x(c, keys[2]), to_y(d, keys[3]))
    if names.issuperset(ANOMALY):
        train, test, attack = (to_x(read_npz(path, key), key) for key in ANOMALY)
        return build(train, _constant(train, 0), *_stack(test, attack))
    x, y = _pair(path)
    return _split(x, y, path.name)


def _pair(path: Path) -> tuple[Raw, Labels]:
    names = npz_names(path)
    for x, y in PAIRS:
        if names.issuperset((x, y)):
            return read_npz(path, x), to_y(read_npz(path, y), f"{path.name}: {y}")
    raise DataError(
        f"{path}: has {', '.join(sorted(names)) or 'no arrays'}; expected {', '.join(WHOLE)}, or X and y, "
        f"or {', '.join(ANOMALY)}"
    )


def _split(raw: Raw, y: Labels, place: str) -> Features:
    x = to_x(raw, place)
    if len(x) != len(y):
        raise DataError(f"{place}: {len(x)} rows and {len(y)} labels")
    if len(x) == 0:
        raise DataError(f"{place}: has no rows")
    train, test = stratified(y, TEST_SHARE, SEED)
    return build(x[train], y[train], x[test], y[test])


def _constant(x: Raw, label: int) -> Labels:
    return np.full(len(x), label, dtype=np.int64)


def _stack(normal: Raw, anomaly: Raw) -> tuple[Raw, Labels]:
    if normal.shape[1:] != anomaly.shape[1:]:
        raise DataError(f"benign_test has examples of shape {normal.shape[1:]}, attack of {anomaly.shape[1:]}")
    return np.concatenate([normal, anomaly]), np.concatenate([_constant(normal, 0), _constant(anomaly, 1)])


def _call(alias: str, target: str, base: Path) -> Features:
    place = f'[data] {alias} = "{target}"'
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise DataError(f'{place}: expected "package.module:function"')
    if str(base) not in sys.path:
        sys.path.append(str(base))  # the user's module lies beside floe.toml; last, so that it hides nothing
    try:
        found = getattr(importlib.import_module(module), name)()
    except (Exception, SystemExit) as error:
        raise DataError(f"{place}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Features):
        raise DataError(f"{place}: returned {type(found).__name__}, expected edge_client.data.features.Features")
    return found
