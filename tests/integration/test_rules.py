"""Aggregation rules in a real federation over Mosquitto, with a device that lies."""

from __future__ import annotations

import numpy as np
from helpers.federation import Federation
from helpers.plain import SECTIONS

from floe import weights

HONEST = "abcd"


def lying(federation: Federation, devices: tuple[str, ...], **plan: object) -> None:
    """All rounds of a federation of these devices, by a rule."""
    sections = {**SECTIONS, "plan": {"model": "liar", "scaling": "none", **plan}}
    federation.configure({**sections, "rounds": {"count": 2, "devices": len(devices)}})
    federation.aggregator()
    for device in devices:
        federation.client(device)
    federation.finish()


def test_with_krum_one_device_of_five_may_lie(federation: Federation) -> None:
    lying(federation, (*HONEST, "liar"), rule="krum", byzantine=1)
    assert sorted(federation.models()) == [0, 1, 2]
    used = federation.query("SELECT device, weight FROM updates WHERE round = 2 AND task = 'train' ORDER BY device")
    assert sorted(row["weight"] for row in used) == [0.0, 0.0, 0.0, 0.0, 1.0]
    (chosen,) = [row["device"] for row in used if row["weight"]]
    assert chosen in HONEST
    model, upload = weights.read(federation.model(2)), federation.upload(chosen)
    assert {name: array.tobytes() for name, array in model.items()} == {n: a.tobytes() for n, a in upload.items()}
    measured = federation.query("SELECT base_accuracy FROM updates WHERE task = 'evaluate'")
    assert len(measured) == 5
    assert all(row["base_accuracy"] > 0.5 for row in measured)


def test_with_the_median_the_model_is_the_median_of_what_was_sent(federation: Federation) -> None:
    lying(federation, ("a", "b", "liar"), rule="median")
    uploads, model = [federation.upload(device) for device in ("a", "b", "liar")], weights.read(federation.model(2))
    for name, array in model.items():
        np.testing.assert_array_equal(array, np.median([upload[name] for upload in uploads], axis=0).astype("<f4"))


def test_updates_that_make_no_model_make_their_round_void_and_the_rounds_go_on_to_their_end(
    federation: Federation,
) -> None:
    lying(federation, ("a", "liar"), rule="fedavgm", server_learning_rate=10.0)
    assert sorted(federation.models()) == [0]
    states = federation.query("SELECT round, state FROM rounds WHERE task = 'train' ORDER BY round")
    assert [tuple(row.values()) for row in states] == [(1, "void"), (2, "void")]
    events = [row["text"] for row in federation.query("SELECT text FROM events WHERE kind = 'void' ORDER BY id")]
    assert events[0].startswith("train 1 came to nothing: rule \"fedavgm\" makes no model: tensor 'bias' has inf at 0")
    assert not federation.model(1).exists()
    assert federation.query("SELECT * FROM events WHERE level = 'error'") == []


def test_with_krum_a_device_that_keeps_its_weights_is_refused_and_the_rounds_go_on_to_their_end(
    federation: Federation,
) -> None:
    plan = {"model": "plain", "scaling": "none", "rule": "krum", "byzantine": 1}
    federation.configure({**SECTIONS, "plan": plan, "rounds": {"count": 2, "devices": 5, "grace_s": 0.5}})
    federation.aggregator()
    for device in HONEST:
        federation.client(device)
    federation.client("secretive", "--report", "accuracy")
    federation.finish()
    told = federation.query("SELECT device, reason FROM updates WHERE task = 'train' AND outcome <> 'accepted'")
    assert [tuple(row.values()) for row in told] == [("secretive", "weights")] * 2
    events = [row["text"] for row in federation.query("SELECT text FROM events WHERE kind = 'void' ORDER BY id")]
    assert events[0].startswith('train 1 came to nothing: weights: rule "krum" needs weights of all: set [device]')
    assert federation.query("SELECT * FROM events WHERE level = 'error'") == []
