"""The aggregator's part of `floe check`: database, models, spool and published transfer against each other. Reads."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from aggregator import check_log
from aggregator.check_log import Snapshot
from aggregator.check_roster import check_roster
from aggregator.memory import MEMORIES, fault_of_memory
from aggregator.mend import kept_epoch
from aggregator.privacy import KEY, read_key
from aggregator.registry import is_signed
from aggregator.spool import phases_of, place_in_spool
from aggregator.updates_csv import difference
from floe import kept, weights
from floe.errors import Refused
from floe.files import fault_of, hash_of
from floe.findings import Findings
from floe.identity import load_identity, load_sealing_key, present
from floe.messages import Manifest
from floe.parcel import load_parcel
from floe.sequence import read_session
from floe.service import is_running
from floe.settings import Config
from floe.signing import verify
from floe.store import CSV, FILE, read_log
from floe.trouble import LOCKED, is_locked


def check(config: Config, name: str, found: Findings) -> None:
    """Everything of one lineage. The database is read in one transaction: it may grow meanwhile."""
    state, folder = config.path(config.paths.state) / f"aggregator-{name}", config.path(config.paths.log)
    running = is_running(state)
    if running:
        found.note(
            state, f"the aggregator is running: spool, incoming, published and {CSV} move, and are not looked at"
        )
    public = _check_state(state, name, found)
    snapshot = _check_database(config, folder / FILE, name, found, None if running else folder / CSV)
    if snapshot is not None:
        models = config.path(config.paths.models)
        _check_models(models, snapshot, public, found)
        if not running:
            _check_strays(models, snapshot, found)
        _check_noise(state / KEY, snapshot.noised, found)
        if not running:
            _check_spool(state / "spool", snapshot, found)
    if not running:
        _check_transfers(state, found)
    for place in (state, folder, config.path(config.paths.models)):
        found.set_aside(place)


def _check_state(state: Path, lineage: str, found: Findings) -> str | None:
    public = None
    key = state / "keys" / f"{lineage}.pem"
    with found.looking_at(key, "key"):
        if present(key):
            public = load_identity(key.parent, lineage).key
        else:
            found.damage(key, "missing: no signature can be checked", "restore it: devices trust this key alone")
    sealing = state / "keys" / f"{lineage}.hpke.pem"
    there = found.has(sealing)
    if there:
        with found.looking_at(sealing, "sealing key"):
            load_sealing_key(sealing.parent, lineage)
    elif there is False and found.has(state / "enrolled"):
        found.damage(sealing, "missing: nothing that is sealed to it can be opened", "restore it from a backup")
    with found.looking_at(state / "sequence", "sequence number"):
        read_session(state / "sequence")
    with found.looking_at(state / "epoch", "epoch file"):
        kept_epoch(state / "epoch", None, lambda text: None)
    for path in found.files_in(state, "scaling-*.safetensors"):
        way_out = "at its start the aggregator sets it aside and, if it is needed, gathers it again"
        found.look_into(path, "scaling", kept.fault_of, way_out)
    for path in found.files_in(state / "optimizer", MEMORIES):
        way_out = "the aggregator sets it aside, and the optimizer begins at zero"
        found.look_into(path, "optimizer's memory", fault_of_memory, way_out)
    return public


def _check_database(config: Config, path: Path, lineage: str, found: Findings, csv: Path | None) -> Snapshot | None:
    unreadable = "restore a backup; without one move it away: a new log begins a new epoch, and the models remain"
    with found.looking_at(path, "database"):
        try:
            with closing(read_log(path).conn) as connection:
                connection.execute("BEGIN")
                snapshot = check_log.read(connection, path, lineage, found)
                check_roster(config, connection, path, lineage, found)
                if snapshot is not None and csv is not None and found.has(csv):
                    found.count("CSV file")
                    record, anew = "the database is the record: ", "the next start writes it anew"
                    # A kill between the commit and the line leaves the beginning: nothing is damaged.
                    match difference(csv, snapshot.db):
                        case "cut":
                            found.note(csv, f"behind the table updates, as after a kill; {record}{anew}")
                        case "other":
                            found.damage(csv, "not what the table updates says", f"{record}move it away, and {anew}")
                return snapshot
        except (sqlite3.Error, json.JSONDecodeError) as error:
            if is_locked(error):
                found.damage(path, LOCKED.text, LOCKED.way_out)
                return None
            found.damage(path, f"cannot be read as Floe's log ({error})", unreadable)
    return None


def _check_models(models: Path, snapshot: Snapshot, public: str | None, found: Findings) -> None:
    for row in snapshot.models:
        path = models / row["file"]
        found.count("model")
        present = "the next start makes it again if it is still published; else restore a backup"
        way_out = present if row == snapshot.present else "restore it from a backup; training goes on without it"
        if fault := fault_of(path, row["sha256"], row["bytes"]):
            found.damage(path, fault, way_out)
            continue
        try:
            weights.check_numbers(path)
        except (OSError, Refused) as error:
            found.damage(path, str(error), way_out)
        if (size := path.stat().st_size) != row["bytes"]:
            found.damage(path, f"{size} bytes, the log has {row['bytes']}", "the hash agrees: the log is altered")
        if public is not None and not is_signed(row, public):
            found.damage(
                path, "its signature in the log is not of this aggregator's key", "restore log and key together"
            )


def _check_strays(models: Path, snapshot: Snapshot, found: Findings) -> None:
    """Not beside what runs: it has made other models since the log was read."""
    known = {models / row["file"] for row in snapshot.models}
    for path in found.files_in(models / "global", "*.safetensors"):
        if path not in known:
            found.note(path, "no model of this log; from a round that was cut off, or the log is an older copy")


def _check_noise(key: Path, noised: int, found: Findings) -> None:
    """The key of the noise: there since the first round that put any on updates."""
    there = found.has(key)
    if there:
        with found.looking_at(key, "noise key"):
            read_key(key)
    elif there is False and noised:
        way_out = "restore it; without it a new one is made for the next round, and the account goes on"
        found.damage(key, f"missing: {noised} round(s) of the log have noise from it", way_out)


def _check_spool(spool: Path, snapshot: Snapshot, found: Findings) -> None:
    expected = {}
    for update in snapshot.unused:
        made_in, used_in = phases_of(update)
        expected[spool / place_in_spool(used_in, update["device"], made_in)] = update
    for path, update in expected.items():
        found.count("spooled update")
        if fault := fault_of(path, update["sha256"]):
            found.damage(path, fault, "at its start the aggregator sets it aside, and goes on without this update")
    for path in found.files_below(spool):
        if path not in expected and ".damaged" not in path.name:
            found.note(path, "of no accepted update that waits for its round; the aggregator puts it away")


def _check_transfers(state: Path, found: Findings) -> None:
    for path in found.files_in(state / "published", "*.json"):
        found.count("published transfer")
        try:
            load_parcel(path)
        except (msgspec.MsgspecError, OSError, ValueError, Refused) as error:
            found.damage(path, str(error), "at its start the aggregator sets it aside and seals the model anew")
    for path in found.files_in(state / "incoming", "*.manifest"):
        found.count("announced update")
        try:
            verify(path.read_bytes(), Manifest)
        except (OSError, Refused) as error:
            found.damage(path, str(error), "remove it: the device announces its update again")
    for path in found.files_in(state / "incoming", "*.part"):
        if not found.has(path.with_suffix(".manifest")):
            with found.looking_at(path, "file of chunks"):
                found.note(path, f"chunks that no announcement speaks of (SHA-256 {hash_of(path)[:12]}...)")
