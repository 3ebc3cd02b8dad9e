"""The outbox: nothing leaves it before its answer, and it is announced again and again until then."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from helpers.wire import PHASE, keyring

from edge_client.outbox import FIRST_S, LONGEST_S, Outbox
from floe.messages import Phase
from floe.parcel import Parcel, pack


def _put(outbox: Outbox, phase: Phase = PHASE) -> Parcel:
    parcel = pack(
        outbox.folder, None, "{}", keyring("chacha20-poly1305"),
        federation="floe", phase=phase, kind="update", sender="ann", base="",
    )  # fmt: skip
    outbox.put(parcel)
    return parcel


def test_a_parcel_is_there_after_a_restart_and_gone_after_its_answer(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    parcel = _put(outbox)
    again = Outbox(tmp_path)
    assert again.get(parcel.name) == parcel
    assert again.holds(PHASE)
    again.forget(parcel.name)
    assert again.get(parcel.name) is None
    assert not Outbox(tmp_path).holds(PHASE)


def test_a_parcel_is_announced_at_once_and_then_with_growing_pauses(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    _put(outbox)
    announced, now = [], 0.0
    while now < 600:
        announced += [now] if outbox.due(now) else []
        now += 0.25
    pauses = [b - a for a, b in pairwise(announced)]
    assert announced[0] == 0.0
    for place, pause in enumerate(pauses):
        planned = min(FIRST_S * 2**place, LONGEST_S)
        assert 0.75 * planned <= pause <= 1.25 * planned + 0.25
    assert len(pauses) > 8


def test_after_a_want_it_is_quiet_and_after_a_reconnect_it_is_not(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    parcel = _put(outbox)
    outbox.due(0.0)
    outbox.heard(parcel.name, [], 1.0)
    assert outbox.due(1.0 + 2 * FIRST_S - 0.01) == []
    outbox.hurry()
    assert outbox.due(1.0) == [parcel]


def test_what_is_announced_or_asked_for_again_is_counted_and_the_first_time_is_not(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    parcel = _put(outbox)
    outbox.due(0.0)
    outbox.heard(parcel.name, [0, 1, 2], 1.0)
    assert outbox.retries == 0
    outbox.heard(parcel.name, [1, 2, 3], 2.0)
    assert outbox.retries == 2
    outbox.hurry()
    outbox.due(2.0)
    assert outbox.retries == 3


def test_a_want_for_what_is_not_there_changes_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.heard("0" * 32, [], 1.0)
    assert outbox.due(1.0) == []


def test_only_the_phase_that_it_holds_is_held(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    _put(outbox)
    assert not outbox.holds(Phase("main", 1, 3, "evaluate"))
    assert not outbox.holds(Phase("main", 2, 3, "train"))


def test_several_parcels_wait_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    made = [_put(outbox, Phase("main", 1, number, "train")) for number in (1, 2, 3)]
    assert Outbox(tmp_path).due(0.0) == made


def test_the_folder_is_private(tmp_path: Path) -> None:
    assert Outbox(tmp_path / "outbox").folder.stat().st_mode & 0o777 == 0o700


def test_the_envelope_is_made_anew_for_each_announcement(tmp_path: Path) -> None:
    parcel = _put(Outbox(tmp_path))
    ring = keyring("chacha20-poly1305")
    assert parcel.envelope(ring, "main").to == "main"
    assert parcel.envelope(ring, "other").key != parcel.envelope(ring, "main").key
