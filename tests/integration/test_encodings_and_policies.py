"""Encoded updates and models where the rest is not plain: late updates, asynchronous rounds, personal layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.federation import Federation
from helpers.plain import Plain

from edge_client.data.folder import read
from floe import weights
from floe.coding import is_half
from floe.plan import Plan

ACCEPTED = "SELECT * FROM updates WHERE device = ? AND round = ? AND task = 'train' AND outcome = 'accepted'"
OPEN = "SELECT * FROM rounds WHERE round = ? AND task = 'train' AND state = 'open'"
Arrays = Mapping[str, weights.AnyArray]


def configure(federation: Federation, plan: Mapping[str, Any], **rounds: Any) -> None:
    """A model with one tensor that is coded, `ballast`, and two that are too small for it."""
    plan = {"model": "held", "scaling": "none", "hidden": [100], **plan}
    federation.configure({"plan": plan, "rounds": {"grace_s": 0.0, **rounds}})


def hold(federation: Federation, device: str, round_: int) -> Path:
    path = federation.folder / f"hold-{device}-{round_}"
    path.touch()
    return path


def trained(federation: Federation, device: str, base: Arrays, round_: int) -> Arrays:
    """What a device has trained, before it was encoded."""
    plan = Plan(model="plain", epochs=1, learning_rate=0.1, seed=7, hidden=(100,))
    features = read(federation.folder / "features" / device)
    found, _ = Plain(features, plan).train(base, device=device, round=round_, stop=lambda: False)
    return found


def assert_near(found: Arrays, wanted: Arrays, base: Arrays, step: float) -> None:
    """As near as the coding makes it: within a step of the largest difference, and not nearer everywhere."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        largest = np.abs(array - base[name]).max()
        off = np.abs(found[name] - array).max()
        assert off <= step * largest + 1e-6
        assert (off > 0) == (name == "ballast")


def model(federation: Federation, round_: int) -> Arrays:
    return weights.read(federation.model(round_))


def test_a_late_update_is_decoded_with_the_older_model_that_it_started_from(federation: Federation) -> None:
    configure(federation, {"upload": "int8"}, count=2, quorum=1, late="merge")
    gate, a_two = hold(federation, "b", 1), hold(federation, "a", 2)
    hold(federation, "b", 2)
    federation.aggregator()
    b = federation.client("b")
    federation.until("SELECT * FROM devices WHERE device = 'b'")
    federation.client("a")
    federation.until(OPEN, 2)
    federation.wait(lambda: "round 2: train, open" in b.said(), "b was to hear of round 2")
    gate.unlink()
    assert federation.until(ACCEPTED, "b", 1)["merged"] == 2
    a_two.unlink()
    federation.finish()
    zero, one, two = (model(federation, number) for number in (0, 1, 2))
    assert_near(federation.upload("b"), trained(federation, "b", zero, 1), zero, 1 / 127)
    first, second = trained(federation, "a", zero, 1), trained(federation, "a", one, 2)
    with_residual = {name: array + (first[name] - one[name]) for name, array in second.items()}
    assert_near(federation.upload("a"), with_residual, one, 1 / 127)
    for name in two:
        a, late, start = (
            arrays[name].astype(float) for arrays in (federation.upload("a"), federation.upload("b"), zero)
        )
        moved = one[name].astype(float) + 2**-0.5 * late - 2**-0.5 * start
        expected = (40.0 * a + 40.0 * moved.astype(np.float32).astype(float)) / 80
        np.testing.assert_array_equal(two[name], expected.astype(np.float32))


def test_asynchronously_every_update_is_decoded_with_its_own_base_and_makes_a_model_of_float16(
    federation: Federation,
) -> None:
    configure(federation, {"upload": "float16", "download": "float16"}, mode="asynchronous", count=6)
    gate = hold(federation, "b", 1)
    for device, round_ in (("a", 4), ("b", 4), ("b", 5), ("b", 6)):
        hold(federation, device, round_)
    aggregator = federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.until(OPEN, 4)
    aggregator.kill()
    federation.aggregator()
    gate.unlink()
    assert federation.until(ACCEPTED, "b", 1)["merged"] == 4
    (federation.folder / "hold-a-4").unlink()
    federation.finish()
    assert federation.query("SELECT * FROM updates WHERE outcome = 'rejected'") == []
    zero, three, four = (model(federation, number) for number in (0, 3, 4))
    b = federation.upload("b")
    assert_near(b, trained(federation, "b", zero, 1), zero, 2**-11)
    share = 0.6 * (1 + 3) ** -0.5
    for name in four:
        mixed = ((1 - share) * three[name].astype(float) + share * b[name].astype(float)).astype(np.float32)
        if name == "ballast":
            assert is_half(four[name].reshape(-1))
            assert 0 < np.abs(four[name] - mixed).max() <= 2**-10 * np.abs(mixed).max()
        else:
            np.testing.assert_array_equal(four[name], mixed)


@pytest.mark.parametrize("personal", ["weight", "ballast"])
def test_personal_layers_stay_at_home_and_whole_while_the_others_are_encoded(
    federation: Federation, tmp_path: Path, personal: str
) -> None:
    plan = {"model": "plain", "personal": [personal], "upload": "int8", "download": "float16"}
    configure(federation, plan, count=3, grace_s=600.0)
    federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.finish()
    simulated = Federation(tmp_path / "simulated", federation.port, secret=False)
    configure(simulated, plan, count=3, grace_s=600.0)
    for device in "ab":
        simulated.features(device)
    simulated.start("simulate", "simulate").wait()
    simulated.close()
    assert simulated.models() == federation.models()
    shared = {"weight", "bias", "ballast"} - {personal}
    last = model(federation, 3)
    assert (set(last), set(federation.upload("a"))) == (shared, shared)
    own = {device: weights.read(federation.folder / "models" / f"{device}.safetensors") for device in "ab"}
    assert set(own["a"]) == {*shared, personal}
    assert not np.array_equal(own["a"][personal], own["b"][personal])
    assert not is_half(own["a"][personal].reshape(-1)), "no coding has touched it"
    kept = [
        weights.read(path) for path in (federation.folder / "state" / "device-a" / "local" / "rounding").glob("*.s*")
    ]
    assert {name for arrays in kept for name in arrays} == {"ballast"} - {personal}
    assert is_half(last.get("ballast", np.zeros(1, np.float32)).reshape(-1))
