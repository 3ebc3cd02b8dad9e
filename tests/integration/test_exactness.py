"""The model is a function of what was accepted: the same for the same seed, and numpy's mean to the last bit."""

from __future__ import annotations

import numpy as np
from helpers.federation import BIG, Federation
from helpers.proxy import PASS, Message, Proxy, Verdict

from floe import weights


def test_the_same_federation_run_again_gives_the_same_models(
    federation: Federation, undisturbed: dict[int, str]
) -> None:
    federation.configure(BIG)
    federation.aggregator()
    for device in ("b", "a"):
        federation.client(device)
    federation.finish()
    assert sorted(undisturbed) == [0, 1, 2]
    assert federation.models() == undisturbed


def test_another_seed_gives_another_model(federation: Federation, undisturbed: dict[int, str]) -> None:
    federation.configure({"plan": {**BIG["plan"], "seed": 8}, "rounds": {"count": 1}})
    federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.finish()
    assert federation.models()[1] != undisturbed[1]


def test_the_order_of_arrival_does_not_matter(federation: Federation, undisturbed: dict[int, str]) -> None:
    def late(message: Message) -> Verdict:
        return Verdict(delay_s=0.7) if message.upward and "/manifest" in message.topic else PASS

    federation.configure(BIG)
    with Proxy(federation.port, late) as proxy:
        federation.aggregator()
        federation.client("a", port=proxy.port)
        federation.client("b")
        federation.finish()
    order = [r["device"] for r in federation.query("SELECT device FROM updates WHERE task = 'train' ORDER BY id")]
    assert order == ["b", "a", "b", "a"], "a was to be late"
    assert federation.models() == undisturbed


def test_the_federated_mean_is_numpys_float64_mean_to_the_last_bit(federation: Federation) -> None:
    rows = {"a": 41, "b": 53, "c": 17}
    federation.configure({"rounds": {"count": 1, "devices": 3}})
    federation.aggregator()
    for device, count in rows.items():
        federation.features(device, rows=count)
        federation.client(device)
    federation.finish()
    uploads = {device: federation.upload(device) for device in rows}
    model = weights.read(federation.model(1))
    for name in uploads["a"]:
        stack = np.stack([uploads[device][name].astype(np.float64) for device in rows])
        expected = np.average(stack, axis=0, weights=list(rows.values())).astype(np.float32)
        assert model[name].tobytes() == expected.tobytes(), name
    assert set(model) == {*uploads["a"], "scaling.mean", "scaling.scale"}
