"""Each file that the aggregator reads when it starts, damaged while it was down in the middle of a round."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from helpers.chain import INIT, SUMS, TRAIN, accept, killed_in_round_1, opened, started
from helpers.damage import DAMAGE, content_of
from msgspec.structs import replace

from aggregator.log import Log
from floe import weights
from floe.encoding import is_encoded
from floe.errors import FloeError, KeyFileError, StoreError
from floe.messages import Phase
from floe.parcel import open_parcel, saved_parcels
from floe.plan import Plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    killed_in_round_1(tmp_path)
    return tmp_path


def mean_of_the_round(folder: Path) -> float:
    """Start again, close the round, and tell the next model's numbers, which are all the same."""
    with started(folder) as (chain, state, _):
        assert (state.phase, state.stage) == (TRAIN, "open")
        chain.open(state)
        chain.close(TRAIN, up=0, down=0)
        assert chain.model is not None
        values = weights.read(chain.model.path)["w"]
    assert len(set(values)) == 1
    return float(values[0])


def damaged_events(folder: Path) -> list[str]:
    with closing(Log(folder / "log")) as log:
        return [row["text"] for row in log.db.query("SELECT text FROM events WHERE kind = 'damaged' ORDER BY id")]


def test_undamaged_it_goes_on_and_tells_nothing(folder: Path) -> None:
    assert mean_of_the_round(folder) == 2.0
    assert damaged_events(folder) == []


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
def test_a_damaged_spool_file_is_not_in_the_mean_and_the_round_goes_on_without_it(folder: Path, damage: str) -> None:
    path = folder / "state/aggregator-main/spool/1-1-train/a.safetensors"
    (DAMAGE | {"missing": Path.unlink})[damage](path)
    bad = content_of(path) if damage != "missing" else None
    with started(folder) as (_, state, log):
        assert (state.accepted, state.refused) == (frozenset({"b"}), frozenset({"a"}))
        ended = log.outcome("train 1 a".ljust(32, "0"))
        assert ended is not None
        assert (ended.outcome, ended.reason) == ("rejected", "storage")
        assert str(path) in ended.detail
    [text] = damaged_events(folder)
    assert "the round goes on without this update" in text
    aside = folder / "state/aggregator-main/a.safetensors.damaged"
    assert (content_of(aside) if damage != "missing" else None) == bad
    lines = (folder / "log/updates.csv").read_text().splitlines()
    assert [line.split(",")[6:8] for line in lines[2:]] == [["rejected", "storage"], ["accepted", ""]]
    assert mean_of_the_round(folder) == 3.0
    assert (content_of(aside) if damage != "missing" else None) == bad, "it stays when the round has closed"


def test_all_spool_files_damaged_leave_no_update(folder: Path) -> None:
    for device in ("a", "b"):
        DAMAGE["flipped"](folder / f"state/aggregator-main/spool/1-1-train/{device}.safetensors")
    with started(folder) as (_, state, _log):
        assert (state.accepted, state.refused) == (frozenset(), frozenset({"a", "b"}))


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
def test_a_damaged_late_update_is_not_merged_into_the_round_that_is_still_to_open(folder: Path, damage: str) -> None:
    with started(folder) as (chain, state, log):
        chain.open(state)
        chain.close(TRAIN, up=0, down=0)
        path = chain.spool.path("c", TRAIN, replace(TRAIN, round=2))
        accept(chain, log, TRAIN, "c", path, w=np.ones(100, np.float32))
    assert path.name == "c@1.safetensors"
    with started(folder) as (_, state, _log):
        assert (state.phase.round, state.merged) == (2, 1)
    (DAMAGE | {"missing": Path.unlink})[damage](path)
    with started(folder) as (_, state, log):
        assert (state.phase.round, state.merged) == (2, 0)
        ended = log.outcome("train 1 c".ljust(32, "0"))
        assert ended is not None
        assert (ended.outcome, ended.reason) == ("rejected", "storage")


def test_what_is_damaged_while_it_runs_makes_no_model(folder: Path) -> None:
    with started(folder) as (chain, state, _):
        chain.open(state)
        DAMAGE["cut"](folder / "state/aggregator-main/spool/1-1-train/a.safetensors")
        with pytest.raises(StoreError, match=r"1-1-train: .*a restart sets aside what is damaged"):
            chain.close(TRAIN, up=0, down=0)
        assert chain.model is not None
        assert chain.model.round == 0
    assert mean_of_the_round(folder) == 3.0


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
def test_a_damaged_model_is_made_again_from_what_was_published(folder: Path, damage: str) -> None:
    path = folder / "models/global/0.safetensors"
    before = path.read_bytes()
    (DAMAGE | {"missing": Path.unlink})[damage](path)
    bad = content_of(path) if damage != "missing" else None
    assert mean_of_the_round(folder) == 2.0
    assert path.read_bytes() == before
    assert (content_of(path.with_name("0.safetensors.damaged")) if bad is not None else None) == bad
    assert "made again from the transfer that was published" in damaged_events(folder)[1]


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
def test_a_damaged_model_is_made_again_from_a_transfer_that_carries_it_encoded(tmp_path: Path, damage: str) -> None:
    half = Plan(scaling="none", download="float16")
    killed_in_round_1(tmp_path, half)
    [published] = saved_parcels(tmp_path / "state/aggregator-main/published", print)
    open_parcel(published, tmp_path / "carried")
    assert is_encoded(tmp_path / "carried")
    path = tmp_path / "models/global/0.safetensors"
    before = path.read_bytes()
    (DAMAGE | {"missing": Path.unlink})[damage](path)
    with started(tmp_path, plan=half) as (chain, _, _log):
        assert chain.model is not None
        assert chain.model.path.read_bytes() == before
        again = chain.parcel()
        assert again is not None
        assert again.name == published.name, "devices have it already"
    assert "made again from the transfer that was published" in damaged_events(tmp_path)[1]


def test_a_damaged_model_without_its_transfer_stops_the_start_and_stays_set_aside(folder: Path) -> None:
    path = folder / "models/global/0.safetensors"
    DAMAGE["flipped"](path)
    bad = path.read_bytes()
    for part in (folder / "state/aggregator-main/published").iterdir():
        part.unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"0\.safetensors: .*; restore it from a backup"), started(folder):
            pass
    assert path.with_name("0.safetensors.damaged").read_bytes() == bad


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ending", ["json", "chunks"])
def test_a_damaged_published_transfer_is_sealed_anew(folder: Path, ending: str, damage: str) -> None:
    [path] = (folder / "state/aggregator-main/published").glob(f"*.{ending}")
    DAMAGE[damage](path)
    bad = content_of(path)
    with started(folder) as (chain, _, _log):
        parcel = chain.parcel()
        assert parcel is not None
        assert chain.model is not None
        assert parcel.name != path.stem
        assert parcel.core.base == chain.model.sha256
    assert content_of(path.with_name(f"{path.name}.damaged")) == (
        bad if damage != "unreadable" else ("link", path.name)
    )
    assert mean_of_the_round(folder) == 2.0


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_csv_is_set_aside_and_written_anew(folder: Path, damage: str) -> None:
    path = folder / "log/updates.csv"
    right = path.read_bytes()
    DAMAGE[damage](path)
    bad = content_of(path)
    with closing(Log(folder / "log")):
        pass
    assert path.read_bytes() == right
    aside = path.with_name("updates.csv.damaged")
    if damage in ("cut", "empty"):  # what a crash leaves, and nothing that is not in the database
        assert not aside.exists()
    else:
        assert content_of(aside) == bad


@pytest.mark.parametrize("damage", ["empty", "random", "folder", "unreadable"])
def test_a_damaged_epoch_is_set_aside_where_the_log_knows_it(folder: Path, damage: str) -> None:
    path = folder / "state/aggregator-main/epoch"
    DAMAGE[damage](path)
    assert mean_of_the_round(folder) == 2.0
    assert path.read_text() == "1"
    assert "epoch.damaged" in damaged_events(folder)[0]


def test_a_damaged_epoch_without_a_log_stops_the_start_and_stays(folder: Path) -> None:
    for path in (folder / "log").iterdir():
        path.unlink()
    (folder / "state/aggregator-main/epoch").write_text("x")
    with pytest.raises(StoreError, match=r"epoch: not the number of an epoch.*restore one of the two"), started(folder):
        pass
    assert (folder / "state/aggregator-main/epoch").read_text() == "x"


def test_a_log_that_is_gone_begins_a_new_epoch_and_touches_no_old_model(folder: Path) -> None:
    before = (folder / "models/global/0.safetensors").read_bytes()
    text = (folder / "log/updates.csv").read_bytes()
    for path in (folder / "log").glob("floe.sqlite*"):
        path.unlink()
    with started(folder) as (_, state, _log):
        assert state.phase == Phase("main", 2, 0, "init")
    assert (folder / "models/global/0.safetensors").read_bytes() == before
    assert (folder / "log/updates.csv.damaged").read_bytes() == text
    assert any("a new one begins, in epoch 2" in event for event in damaged_events(folder))


@pytest.mark.parametrize("damage", ["cut", "random", "folder", "unreadable"])
def test_a_damaged_log_is_named_and_left_as_it_is(folder: Path, damage: str) -> None:
    path = folder / "log/floe.sqlite"
    DAMAGE[damage](path)
    before = content_of(path)
    with pytest.raises(
        StoreError, match=r"floe\.sqlite: cannot be opened as Floe's log .*restore a backup, or move it"
    ):
        Log(folder / "log")
    assert content_of(path) == before


def test_an_empty_log_beside_its_journal_is_damaged_and_not_new(folder: Path) -> None:
    path = folder / "log/floe.sqlite"
    path.write_bytes(b"")
    path.with_name("floe.sqlite-wal").write_bytes(b"pages")
    with pytest.raises(StoreError, match=r"it is empty, but floe\.sqlite-wal is there"):
        Log(folder / "log")


@pytest.mark.parametrize("damage", ["cut", "empty", "random", "folder", "unreadable"])
def test_a_damaged_key_is_named_and_not_replaced(folder: Path, damage: str) -> None:
    path = folder / "state/aggregator-main/keys/main.pem"
    DAMAGE[damage](path)
    before = content_of(path)
    with pytest.raises(KeyFileError, match=r"main\.pem"), started(folder):
        pass
    assert content_of(path) == before


def test_a_key_that_still_reads_but_is_another_is_found_by_the_signature_of_the_model(folder: Path) -> None:
    path = folder / "state/aggregator-main/keys/main.pem"
    lines = path.read_text().splitlines()
    at = 40
    lines[1] = lines[1][:at] + ("A" if lines[1][at] != "A" else "B") + lines[1][at + 1 :]
    path.write_text("\n".join(lines))
    with pytest.raises(KeyFileError, match="not the one that signed"), started(folder):
        pass


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("init_is_open", [True, False])
def test_a_damaged_scaling_is_gathered_again_in_a_new_epoch(tmp_path: Path, damage: str, init_is_open: bool) -> None:
    sums = {"sums.count": np.array([5]), "sums.mean": np.zeros(2), "sums.m2": np.ones(2)}
    with started(tmp_path, "standard") as (chain, state, log):
        assert state.phase == SUMS
        chain.open(opened(SUMS))
        accept(chain, log, SUMS, "a", **sums)
        chain.close(SUMS, up=0, down=0)
        if init_is_open:
            chain.open(opened(INIT))
    path = tmp_path / "state/aggregator-main/scaling-1.safetensors"
    DAMAGE[damage](path)
    bad = content_of(path)
    with started(tmp_path, "standard") as (chain, state, _):
        assert (state.phase, state.stage) == (Phase("main", 2, 0, "sums"), "waiting")
    assert content_of(path.with_name(f"{path.name}.damaged")) == bad
    assert "the sums are gathered again, in a new epoch" in damaged_events(tmp_path)[0]


def test_an_undamaged_scaling_is_used(tmp_path: Path) -> None:
    with started(tmp_path, "standard") as (chain, _, log):
        chain.open(opened(SUMS))
        accept(chain, log, SUMS, "a", **{"sums.count": np.array([5]), "sums.mean": np.zeros(2), "sums.m2": np.ones(2)})
        chain.close(SUMS, up=0, down=0)
    with started(tmp_path, "standard") as (_, state, _log):
        assert state.phase == INIT


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_fault_of_any_file_is_an_error_of_floe_or_none(folder: Path, damage: str) -> None:
    """No traceback, whichever file it is: every file of state, models and log, one after the other."""
    files = [path for part in ("state", "models", "log") for path in (folder / part).rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        original = path.read_bytes()
        DAMAGE[damage](path)
        with suppress(FloeError), started(folder):
            pass
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(original)
