"""The device's part of `floe check`: its keys, memory, outbox and models. Reads; repairs nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_client.ledger import Ledger
from edge_client.membership import Membership
from edge_client.memory import Memory
from floe import kept, weights
from floe.anchor import read_anchor
from floe.errors import Refused
from floe.findings import Findings
from floe.identity import load_identity, load_sealing_key, present
from floe.own_keys import CURRENT, NEXT, SEALING, SIGNING, was_cut_off
from floe.parcel import load_parcel
from floe.sequence import read_session
from floe.service import is_running
from floe.settings import Config


def check(config: Config, name: str, found: Findings) -> None:
    """Everything in the state folder of one device."""
    state = config.path(config.paths.state) / f"device-{name}"
    running = is_running(state)
    if running:
        found.note(state, "the device is running: its outbox moves, and is not looked at")
    key, sealing = state / CURRENT / f"{name}{SIGNING}", state / CURRENT / f"{name}{SEALING}"
    if found.has(state / NEXT / sealing.name) and was_cut_off(state, name):
        found.note(state / NEXT, "a change of keys was cut off: the device brings it to its end at its start")
        sealing = state / NEXT / sealing.name
    with found.looking_at(key, "key"):
        if present(key):
            load_identity(key.parent, name)
        elif found.has(state / "memory.json"):
            found.damage(key, "missing, but the device has been at work", "restore it: its name is bound to that key")
    with found.looking_at(state / "memory.json", "memory file"):
        Memory(state)
    if found.has(state / "roster.json"):
        with found.looking_at(sealing, "sealing key"):
            if not present(sealing):
                found.damage(sealing, "missing, but the device is enrolled with it", "restore it, or join anew")
            elif (anchor := read_anchor(config.path(config.security.federation))) is not None:
                private = load_sealing_key(sealing.parent, name)
                with found.looking_at(state / "roster.json", "roster"):
                    Membership(state, anchor, name, config.rounds.lineage, private)
    with found.looking_at(state / "sequence", "sequence number"):
        read_session(state / "sequence")
    if not running:
        _check_outbox(state / "outbox", found)
    found.look_into(
        state / "base.safetensors", "global model", _fault_of_numbers, "remove it: the device fetches the model again"
    )
    check_local(state / "local", found)
    found.set_aside(state)


def check_local(local: Path, found: Findings) -> None:
    """What one device keeps for itself (`edge_client.task.Task`)."""
    ledger = local / "privacy" / "ledger.json"
    if found.has(ledger):
        with found.looking_at(ledger, "privacy ledger"):
            Ledger(ledger.parent)
    _check_kept(local, "local model", found)
    _check_kept(local / "rounding", "rounding file", found)


def _check_kept(folder: Path, what: str, found: Findings) -> None:
    for path in found.files_in(folder, "*.safetensors"):
        way_out = "the device sets it aside when it needs it, and goes on with an older one"
        found.look_into(path, what, kept.fault_of, way_out)


def _check_outbox(outbox: Path, found: Findings) -> None:
    records = found.files_in(outbox, "*.json")
    for path in records:
        found.count("outbox result")
        try:
            load_parcel(path)
        except (msgspec.MsgspecError, OSError, ValueError, Refused) as error:
            found.damage(path, str(error), "at its start the device sets it aside and, if the round is open, redoes it")
    whole = {path.stem for path in records}
    for path in found.files_in(outbox):
        if path.stem not in whole and ".damaged" not in path.name:
            found.note(path, "left by an interrupted write; the device removes it at its start")


def _fault_of_numbers(path: Path) -> str:
    try:
        weights.check_numbers(path)
    except (OSError, Refused) as error:
        return str(error)
    return ""
