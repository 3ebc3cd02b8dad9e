"""The registry: which model is the present one, who gave to it, and how far two files are apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.small import HASHES, add_model, known, open_round, train, update

from aggregator.log import Log
from floe import weights
from floe.errors import DataError
from floe.files import hash_of
from floe.plan import Plan
from ui import model_files
from ui.pages.models import compared
from ui.queries import models


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    known(log, "a", "b")
    for round in range(4):
        add_model(log, round)
    return log


def choose(log: Log, model: str, after: str) -> None:
    log.db.execute(
        "INSERT OR REPLACE INTO control (lineage, held, last, since, count, opens, model, model_after) "
        "VALUES ('main', '', 9, 0, 9, '', ?, ?)",
        [model, after],
    )


def present(log: Log) -> tuple[int, int, bool]:
    found = models.registry(log.db.conn, "main")
    assert found.present is not None
    return found.present.epoch, found.present.round, found.promoted


def test_the_newest_model_is_the_present_one(log: Log) -> None:
    assert present(log) == (1, 3, False)
    assert [one.round for one in models.registry(log.db.conn, "main").models] == [3, 2, 1, 0]


@pytest.mark.parametrize(("rows", "same"), [((5, 5), True), ((5, 6), False), ((None, 6), True), ((5, None), True)])
def test_of_two_models_it_is_marked_where_other_test_rows_measured_them(
    log: Log, rows: tuple[int | None, int | None], same: bool
) -> None:
    one = models.registry(log.db.conn, "main").models[0]
    found = {what: change for what, *_, change in compared(*(replace(one, test_samples=count) for count in rows))}
    assert found["Test rows"] == ("" if same else "▲ not the same")


def test_before_the_first_model_there_is_none(tmp_path: Path) -> None:
    assert models.registry(Log(tmp_path).db.conn, "main") == models.Registry((), None, False)


def test_a_chosen_model_is_present_until_a_newer_one_is_made(log: Log) -> None:
    choose(log, HASHES[1], "1-3")
    assert present(log) == (1, 1, True)
    add_model(log, 4)
    assert present(log) == (1, 4, False)


def test_a_choice_of_an_earlier_epoch_or_of_no_model_counts_no_more(log: Log) -> None:
    choose(log, HASHES[1], "1-3")
    add_model(log, 3, epoch=2, sha256=HASHES[5])
    assert present(log) == (2, 3, False)
    choose(log, HASHES[9], "2-3")
    assert present(log) == (2, 3, False)


def test_who_gave_to_a_model_is_told_late_ones_too(log: Log) -> None:
    open_round(log, 1, ["a", "b"], Plan(epochs=7))
    update(log, "a", 1, merged=2)
    update(log, "b", 2)
    update(log, "b", 2, "rejected", "weights")
    log.db.execute("UPDATE updates SET weight = 0.25 WHERE device = 'a'")
    second = models.registry(log.db.conn, "main").models[1]
    found = models.contributors(log.db.conn, "main", second)
    assert [(one.device, one.round, one.weight, one.accuracy) for one in found] == [
        ("a", 1, 0.25, 0.75), ("b", 2, None, 0.75),
    ]  # fmt: skip
    first = models.registry(log.db.conn, "main").models[2]
    assert models.plan(log.db.conn, "main", first)["epochs"] == 7
    assert models.plan(log.db.conn, "main", second) == {}
    assert train(1).task == first.task


def written(path: Path, **arrays: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> tuple[Path, str, int]:
    weights.write(path, arrays)
    return path, hash_of(path), path.stat().st_size


def test_the_difference_of_two_models_is_that_of_their_numbers_across_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PIECE", 3)
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 5)).astype(np.float32)
    first = written(tmp_path / "1", a=one, b=np.ones(2, np.float32), gone=np.ones(1, np.float32), s=np.ones(3, "f4"))
    second = written(tmp_path / "2", a=other, b=np.ones(2, np.float32), s=np.ones(4, "f4"), zero=np.zeros(1, "f4"))
    found = {one.name: one for one in model_files.differences(first, second)}
    apart = other.astype(np.float64) - one
    assert found["a"].distance == pytest.approx(np.linalg.norm(apart))
    assert found["a"].relative == pytest.approx(np.linalg.norm(apart) / np.linalg.norm(one), rel=1e-6)
    assert found["a"].largest == pytest.approx(np.abs(apart).max())
    assert (found["b"].distance, found["b"].relative, found["b"].largest) == (0.0, 0.0, 0.0)
    assert (found["gone"].note, found["zero"].note) == ("only in the first", "only in the second")
    assert found["s"].note == "shape [3] and [4]"


def test_a_difference_from_nothing_but_zeros_has_no_share(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1", a=np.zeros(2, "f4")), written(tmp_path / "2", a=np.ones(2, "f4"))
    [found] = model_files.differences(first, second)
    assert (found.distance, found.relative) == (pytest.approx(2**0.5), None)


def test_a_file_that_is_not_what_the_log_says_is_not_given(tmp_path: Path) -> None:
    path, sha256, size = written(tmp_path / "1", a=np.ones(2, "f4"))
    assert model_files.content(path, sha256, size) == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DataError, match="damaged"):
        model_files.content(path, sha256, size)
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        model_files.differences((path, sha256, size), (path, sha256, size))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_what_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model")
    with pytest.raises(DataError, match="model: it is no file"):
        model_files.content(tmp_path / "model", "0" * 64, 8)


def test_a_file_that_is_larger_than_the_log_says_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floe.files.hash_of", lambda path: pytest.fail(f"{path} was read"))
    with (tmp_path / "model").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=f"it has {1 << 40} bytes, the log has 8"):
        model_files.content(tmp_path / "model", "0" * 64, 8)
