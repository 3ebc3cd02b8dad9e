"""`floe check`: it finds every damage, names the way out, changes nothing, and gives no false alarm."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.chain import killed_in_round_1
from helpers.damage import DAMAGE, content_of
from helpers.rights import rights_count
from helpers.wire import PHASE, keyring

from aggregator.log import Log
from aggregator.privacy import KEY
from edge_client.ledger import Ledger, Spent
from edge_client.local import LocalModels
from edge_client.memory import Memory
from edge_client.outbox import Outbox
from edge_client.residuals import Residuals
from floe import weights
from floe.cli import floe
from floe.errors import ConfigError, DamageError
from floe.identity import load_identity, load_secret, new_secret, write_private
from floe.messages import Phase
from floe.parcel import pack
from floe.sequence import Sequence
from floe.service import only_one

AGGREGATOR, DEVICE = "state/aggregator-main", "state/device-a"
SIMULATED = f"{AGGREGATOR}/devices/s"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An aggregator that was killed in round 1, and a device with a result in its outbox."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "floe.toml").write_text("[plan]\nscaling = 'none'\n")
    killed_in_round_1(tmp_path)
    new_secret(tmp_path / "secret.key")
    load_secret(tmp_path / "secret.key", tmp_path / AGGREGATOR)
    Sequence(tmp_path / AGGREGATOR / "sequence")
    state = tmp_path / DEVICE
    load_identity(state / "keys", "a")
    Sequence(state / "sequence")
    Memory(state).remember_answer(PHASE)
    outbox = Outbox(state / "outbox")
    source = tmp_path / "source"
    source.write_bytes(bytes(100_000))
    pack(
        outbox.folder, source, "{}", keyring("aes-256-gcm"), federation="floe", phase=PHASE, kind="update", sender="a",
        base="",
    )  # fmt: skip
    source.unlink()
    weights.write(state / "base.safetensors", {"w": np.ones(100, np.float32)})
    for local in (state / "local", tmp_path / SIMULATED):
        keep_for_itself(local)
    return tmp_path


def keep_for_itself(local: Path) -> None:
    """What a device has learned, what rounding took from it, and what it has spent."""
    LocalModels(local).keep(Phase("main", 1, 1, "train"), {"w": np.ones(9, np.float32)}, {"schema": "{}"})
    Residuals(local / "rounding").keep(Phase("main", 1, 1, "train"), {"w": np.ones(9, np.float32)})
    Ledger(local / "privacy").book("round 1", Spent(1.0, 0.1, 10), "plan")


def check(*arguments: str) -> tuple[bool, str]:
    """Whether all is well, and what was printed."""
    result = CliRunner().invoke(floe, ["check", *arguments], standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, DamageError):
        raise result.exception
    assert (result.exception is None) == ("all is well" in result.output or '"ok": true' in result.output)
    return result.exception is None, result.output


def tree(folder: Path) -> dict[str, object]:
    """Everything that is there, but for what SQLite keeps beside a database that is read."""
    return {
        str(path): content_of(path) for path in folder.rglob("*") if not path.name.endswith(("-shm", "-wal"))
    }  # fmt: skip


def place_of(folder: Path, pattern: str) -> Path:
    [path] = folder.glob(pattern)
    return path


FOLDERS = [
    *(AGGREGATOR, f"{AGGREGATOR}/keys", f"{AGGREGATOR}/spool", f"{AGGREGATOR}/spool/1-1-train"),
    *(f"{AGGREGATOR}/published", f"{AGGREGATOR}/incoming", f"{AGGREGATOR}/optimizer", f"{AGGREGATOR}/devices"),
    *(SIMULATED, f"{SIMULATED}/privacy", f"{SIMULATED}/rounding", "log", "models", "models/global"),
    *(DEVICE, f"{DEVICE}/keys", f"{DEVICE}/outbox", f"{DEVICE}/local", f"{DEVICE}/local/privacy"),
]


@pytest.mark.parametrize("mode", [0o000, 0o400], ids=["closed", "names alone"])
@pytest.mark.parametrize("closed", FOLDERS)
def test_a_folder_that_may_not_be_looked_into_is_a_finding_and_the_rest_is_looked_at(
    folder: Path, closed: str, mode: int
) -> None:
    for name in ("incoming", "optimizer"):
        (folder / AGGREGATOR / name).mkdir(exist_ok=True)
        for kind in ("part", "safetensors"):
            (folder / AGGREGATOR / name / f"a-b-c.{kind}").touch()
    others = [f"{SIMULATED}2/1-1.safetensors", "state/device-z/base.safetensors"]
    for name in others:
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"damaged")
    (folder / closed).chmod(mode)
    with rights_count():
        well, text = check("--json")
    (folder / closed).chmod(0o700)
    findings = [finding for finding in json.loads(text)["findings"] if finding["level"] == "damaged"]
    assert not well
    inside = [finding for finding in findings if Path(finding["place"]).is_relative_to(folder / closed)]
    assert any("Permission denied" in finding["what"] for finding in inside), findings
    if mode == 0:
        assert [finding["place"] for finding in inside if "be looked into" in finding["what"]] == [str(folder / closed)]
    seen = {finding["place"] for finding in findings}
    assert {str(folder / name) for name in others if not name.startswith(f"{closed}/")} <= seen
    assert not any("missing" in finding["what"] and "cannot" not in finding["what"] for finding in inside)


def test_what_is_as_it_was_written_is_well_and_all_of_it_is_counted(folder: Path) -> None:
    before = tree(folder)
    assert check() == (
        True,
        "checked  1 shared key, 2 keys, 2 sequence numbers, 1 epoch file, 1 database, 2 rounds, 3 updates, 1 CSV file, "
        "1 model, 2 spooled updates, 1 published transfer, 2 privacy ledgers, 2 local models, 2 rounding files, "
        "1 memory file, 1 outbox result, 1 global model: all is well\n",
    )
    assert tree(folder) == before


def test_json_is_one_object(folder: Path) -> None:
    DAMAGE["cut"](folder / "models/global/0.safetensors")
    well, text = check("--json")
    told = json.loads(text)
    assert (well, told["ok"], told["checked"]["spooled update"]) == (False, False, 2)
    [finding] = told["findings"]
    assert (finding["level"], finding["place"]) == ("damaged", str(folder / "models/global/0.safetensors"))
    assert "the next start makes it again" in finding["way_out"]


FILES = {
    "the shared key": "secret.key",
    "the aggregator's key": f"{AGGREGATOR}/keys/main.pem",
    "the aggregator's sequence": f"{AGGREGATOR}/sequence",
    "the epoch": f"{AGGREGATOR}/epoch",
    "the database": "log/floe.sqlite",
    "the CSV": "log/updates.csv",
    "a model": "models/global/0.safetensors",
    "a spooled update": f"{AGGREGATOR}/spool/1-1-train/a.safetensors",
    "the record of what is published": f"{AGGREGATOR}/published/*.json",
    "the chunks of what is published": f"{AGGREGATOR}/published/*.chunks",
    "the device's key": f"{DEVICE}/keys/a.pem",
    "the device's sequence": f"{DEVICE}/sequence",
    "the memory": f"{DEVICE}/memory.json",
    "the record of a result": f"{DEVICE}/outbox/*.json",
    "the chunks of a result": f"{DEVICE}/outbox/*.chunks",
    "a local model": f"{DEVICE}/local/*.safetensors",
    "what rounding took": f"{DEVICE}/local/rounding/*.safetensors",
    "the privacy ledger": f"{DEVICE}/local/privacy/ledger.json",
    "a simulated device's local model": f"{SIMULATED}/*.safetensors",
    "what rounding took from a simulated device": f"{SIMULATED}/rounding/*.safetensors",
    "a simulated device's privacy ledger": f"{SIMULATED}/privacy/ledger.json",
    "the global model": f"{DEVICE}/base.safetensors",
}
# What no hash is kept of: another key, text or weight is as good as the one that was there.
UNSEEN = {("the shared key", "flipped"), ("the database", "flipped"), ("the global model", "flipped")}
# What a kill leaves, too.
HARMLESS = {("the CSV", "cut"), ("the CSV", "empty")}


@pytest.mark.parametrize(("what", "damage"), [(w, d) for w in FILES for d in DAMAGE if (w, d) not in UNSEEN | HARMLESS])
def test_each_damage_is_one_finding_with_its_place_and_the_way_out(folder: Path, what: str, damage: str) -> None:
    path = place_of(folder, FILES[what])
    DAMAGE[damage](path)
    before = tree(folder)
    well, text = check("--json")
    assert not well
    findings = [f for f in json.loads(text)["findings"] if f["level"] == "damaged"]
    place = str(path).replace(".chunks", ".json")
    assert place in {finding["place"] for finding in findings}
    assert len(findings) == 1 or what in ("the database", "the aggregator's key")
    assert all("Traceback" not in finding["what"] and finding["what"] for finding in findings)
    assert tree(folder) == before, "a check repairs nothing"


@pytest.mark.parametrize(("what", "damage"), sorted(HARMLESS))
def test_what_a_kill_leaves_is_a_note(folder: Path, what: str, damage: str) -> None:
    path = place_of(folder, FILES[what])
    DAMAGE[damage](path)
    well, text = check("--json")
    [finding] = json.loads(text)["findings"]
    assert (well, finding["level"], finding["place"]) == (True, "note", str(path))
    assert "behind the table updates" in finding["what"]


SQL = {
    "DELETE FROM rounds WHERE task = 'init'": "accepted updates of a round that is not there: a: init 0 (epoch 1)",
    "INSERT INTO updates SELECT NULL, 'again', device, lineage, epoch, round, task, outcome, reason, detail, samples, "
    "test_samples, accuracy, loss, roc_auc, base_accuracy, base_loss, base_roc_auc, train_loss, threshold, bytes, "
    "seconds, sha256, suite, time, merged, weight, epsilon, delta, accountant, histogram "
    "FROM updates WHERE device = 'b'": "in a phase: b: train 1 (epoch 1), 2 times",
    "DELETE FROM devices WHERE device = 'b'": "an update of a device that has no key: b",
    "UPDATE rounds SET accepted = 7 WHERE task = 'init'": "is another: init 0 (epoch 1): 7, updates has 1",
    "UPDATE models SET round = 5": "a model whose training round has not closed: model 5 (epoch 1)",
    "UPDATE rounds SET state = 'closed', accepted = 2 WHERE task = 'train'": "without its model: train 1 (epoch 1)",
    "UPDATE rounds SET base_sha256 = 'beef' WHERE task = 'train'": "a model that is not there: train 1 (epoch 1): beef",
    "UPDATE rounds SET state = 'open'": "more than one open round: epoch 1: 2",
    "UPDATE models SET bytes = 7": "bytes, the log has 7",
    "UPDATE models SET signature = 'x'": "its signature in the log is not of this aggregator's key",
    "UPDATE models SET sha256 = 'beef'": "the log has beef",
    "UPDATE updates SET sha256 = 'beef' WHERE device = 'b'": "b.safetensors: damaged",
    "UPDATE updates SET reason = 'weights' WHERE device = 'b'": "updates.csv: not what the table updates says",
    "DROP TABLE models": "it has no table models",
    "DROP TABLE events": "it has no table events",
}


@pytest.mark.parametrize("sql", SQL)
def test_tables_that_contradict_each_other_or_the_disk_are_found(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "log/floe.sqlite")) as db, db:
        assert db.execute(sql).rowcount != 0
    well, text = check()
    assert not well
    assert SQL[sql] in text


def test_the_way_out_of_a_csv_that_says_another_thing_leads_out(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "log/floe.sqlite")) as db, db:
        db.execute("UPDATE updates SET merged = 2 WHERE device = 'a'")  # the last line, and how many there are, stay
    assert "the database is the record: move it away, and the next start writes it anew" in check()[1]
    (folder / "log/updates.csv").rename(folder / "updates.csv")
    Log(folder / "log").close()
    assert "updates.csv" not in check()[1]


def test_leftovers_and_what_was_set_aside_are_named_and_no_damage(folder: Path) -> None:
    leftovers = [
        *("models/global/9.safetensors", "models/global/0.safetensors.damaged", f"{DEVICE}/outbox/aa.packing"),
        *(f"{AGGREGATOR}/spool/1-1-train/c.safetensors", f"{AGGREGATOR}/incoming/c.part"),
    ]
    for name in leftovers:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    well, text = check()
    assert well
    assert [line.split(":")[0] for line in text.splitlines()[:-1] if not line.startswith("note")] == []
    assert all(f"{folder / name}: " in text for name in leftovers)


def test_an_announcement_that_does_not_read_is_found(folder: Path) -> None:
    (folder / AGGREGATOR / "incoming").mkdir()
    (folder / AGGREGATOR / "incoming/a.manifest").write_bytes(b"{}")
    well, text = check()
    assert not well
    assert "a.manifest: signature: the message carries no signature; remove it" in text


def test_beside_what_runs_no_false_alarm_is_given_and_it_is_said_what_is_left_out(folder: Path) -> None:
    DAMAGE["cut"](folder / AGGREGATOR / "spool/1-1-train/a.safetensors")  # as it looks to us while it is moved away
    DAMAGE["cut"](folder / "log/updates.csv")
    DAMAGE["cut"](place_of(folder, f"{DEVICE}/outbox/*.chunks"))
    (folder / "models/global/1.safetensors").touch()  # made since the log was read
    with only_one(folder / AGGREGATOR, "aggregator"), only_one(folder / DEVICE, "device"):
        well, text = check()
    assert well
    assert "the aggregator is running: spool, incoming, published and updates.csv move, and are not looked at" in text
    assert "the device is running: its outbox moves" in text
    assert "no model of this log" not in text
    assert not check()[0]


def test_a_log_that_somebody_holds_is_told_as_held_and_not_as_broken(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "log/floe.sqlite", isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        well, text = check()
    assert not well
    assert "another program holds the log for itself alone; close it there, and look again" in text
    assert "restore a backup" not in text


def test_checking_keeps_nobody_from_starting(folder: Path) -> None:
    check()
    with only_one(folder / AGGREGATOR, "aggregator"):
        pass


def _not_there(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_not_there, "no log there yet"),
        (DAMAGE["empty"], "it has no table"),
        (DAMAGE["random"], "cannot be read as Floe's log (file is not a database)"),
        (DAMAGE["cut"], "cannot be read as Floe's log"),
    ],
)
def test_a_database_that_cannot_be_read_is_said_with_the_way_out(
    folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    for extra in ("-wal", "-shm"):
        (folder / f"log/floe.sqlite{extra}").unlink(missing_ok=True)
    damage(folder / "log/floe.sqlite")
    well, text = check()
    assert not well
    assert words in text


NOISED = "UPDATE rounds SET clip_norm = 0.5 WHERE task = 'train'"


def test_the_key_of_the_noise_is_missed_where_rounds_have_noise_from_it(folder: Path) -> None:
    assert check()[0], "no round has noise"
    with closing(sqlite3.connect(folder / "log/floe.sqlite")) as db, db:
        assert db.execute(NOISED).rowcount == 1
    well, text = check()
    assert not well
    assert "privacy/noise.key: missing: 1 round(s) of the log have noise from it; restore it" in text
    write_private(folder / AGGREGATOR / KEY, bytes(32))
    well, text = check()
    assert well
    assert "1 noise key" in text


@pytest.mark.parametrize("damage", sorted({*DAMAGE} - {"flipped"}))  # another key is as good
def test_a_damaged_key_of_the_noise_is_found_with_or_without_rounds(folder: Path, damage: str) -> None:
    key = folder / AGGREGATOR / KEY
    write_private(key, bytes(32))
    DAMAGE[damage](key)
    well, text = check("--json")
    [finding] = json.loads(text)["findings"]
    assert (well, finding["level"], finding["place"]) == (False, "damaged", str(key))


def test_only_a_device_or_only_an_aggregator_is_checked_where_there_is_no_more(folder: Path) -> None:
    shutil.rmtree(folder / "log")
    shutil.rmtree(folder / "models")
    shutil.rmtree(folder / AGGREGATOR)
    well, text = check()
    assert well
    assert "database" not in text
    assert "1 outbox result" in text


def test_a_log_without_its_state_folder_is_checked_and_the_key_missed(folder: Path) -> None:
    shutil.rmtree(folder / AGGREGATOR)
    well, text = check()
    assert not well
    assert "main.pem: missing: no signature can be checked; restore it" in text
    assert "1 database" in text


def test_where_nothing_is_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no aggregator and no device has anything here.*name that with --config"):
        check()
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigError, match="state"):
        check()
    with pytest.raises(ConfigError, match=r"none\.toml"):
        check("--config", "none.toml")
    with pytest.raises(click.UsageError):
        check("--frobnicate")
    assert not (tmp_path / "log").exists()


def test_a_pipe_in_the_place_of_a_model_is_damage_and_not_waited_for(folder: Path) -> None:
    path = place_of(folder, "models/global/*.safetensors")
    path.unlink()
    os.mkfifo(path)
    well, said = check()
    assert not well
    assert f"{path}: it is no file" in said
