"""The data sets by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from data_helpers import same

from edge_client.data.sources import source
from floe.errors import DataError


def test_breast_cancer_has_benign_as_normal() -> None:
    found = source("breast-cancer", 0)
    assert (len(found.schema.features), found.schema.features[0]) == (30, "mean radius")
    assert np.bincount(np.r_[found.train_y, found.test_y]).tolist() == [357, 212]
    radius = np.r_[found.train_x, found.test_x][:, 0]
    malignant = np.r_[found.train_y, found.test_y] == 1
    assert radius[malignant].mean() > radius[~malignant].mean() + 4  # malignant cells are larger


def test_digits_are_images_from_0_to_1() -> None:
    found = source("digits", 0)
    assert (found.schema.shape, found.schema.classes) == ((1, 8, 8), 10)
    assert (found.train_x.min(), found.train_x.max()) == (0.0, 1.0)
    assert len(found.train_x) + len(found.test_x) == 1797


def test_synthetic_is_separable_but_not_trivially() -> None:
    found = source("synthetic", 5)
    normal = found.train_x[found.train_y == 0]
    center = normal.mean(axis=0)
    plane = np.linalg.svd(normal - center, full_matrices=False)[2][:4]
    rest = (found.test_x - center) - (found.test_x - center) @ plane.T @ plane
    errors = (rest**2).sum(axis=1)
    pairs = errors[found.test_y == 1][:, np.newaxis] > errors[found.test_y == 0]
    assert 0.85 < pairs.mean() < 0.995  # ROC-AUC of the best plane
    single = np.abs(found.test_x[:, 0])
    assert (single[found.test_y == 1][:, np.newaxis] > single[found.test_y == 0]).mean() < 0.75


@pytest.mark.parametrize("name", ["breast-cancer", "digits", "synthetic"])
def test_the_seed_decides(name: str) -> None:
    assert same(source(name, 3), source(name, 3))
    assert not same(source(name, 3), source(name, 4))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(DataError, match="one of breast-cancer, digits, synthetic, mnist, cifar10"):
        source("iris", 0)


def test_without_scikit_learn_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"pip install floe\[demo\]"):
        source("digits", 0)


def test_absent_images_say_where_was_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOE_DATA", raising=False)
    with pytest.raises(DataError, match="set FLOE_DATA to the folder that holds mnist"):
        source("mnist", 0)
    monkeypatch.setenv("FLOE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"FLOE_DATA is {tmp_path}, which has no folder cifar10 or"):
        source("cifar10", 0)


def test_images_are_found_through_floe_data(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOE_DATA", str(data_folder))
    assert source("cifar10", 0).schema.shape == (3, 32, 32)
    assert source("mnist", 0).schema.shape == (1, 28, 28)
