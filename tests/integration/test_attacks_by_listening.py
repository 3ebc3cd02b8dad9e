"""Somebody who hears every byte on the wire: of weights, metrics and keys nothing goes by that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.arena import arena_on
from helpers.broker import broker_on, free
from helpers.federation import Federation, Sections
from helpers.plain import CANARY
from helpers.proxy import Proxy

from floe.signing import from_text

both = pytest.mark.parametrize("defended", [False, True])
SAMPLES = 137  # rows of a: a number that stands nowhere else
CANARIES: Sections = {"rounds": {"count": 1, "devices": 2}, "plan": {"model": "canary"}}
METRICS = (b'"samples":%d' % SAMPLES, b'"accuracy"', b'"loss"', b'"seconds":')


def readable(proxy: Proxy) -> bytes:
    """All bytes of all packets, and what the manifests have in base64url."""
    reports = []
    for message in proxy.kept:
        if message.topic.endswith(("/manifest", "/model")):
            meta = json.loads(message.payload)["core"]["meta"]
            reports.append(meta.encode() if meta.startswith("{") else from_text(meta))
    return bytes(proxy.tape) + b"".join(reports)


def judge(proxy: Proxy, *, defended: bool) -> None:
    """Without sealing the canary and the metrics are there to be read; with it nothing of them."""
    found = readable(proxy)
    assert found.count(b"/chunk/") > 4, "weights were to travel"
    for secret in (CANARY, b"data_offsets", *METRICS):
        # The round document, which all may read, has "seconds_left" and the plan's "report", but no metric.
        assert (secret in found) != defended, secret


@both
def test_attack_listening_to_an_enrolled_federation(template: Path, tmp_path: Path, defended: bool) -> None:
    with arena_on(tmp_path, template, defended=defended, sections=CANARIES) as arena:
        with arena.without("sealing", "opening"):
            arena.federation.features("a", rows=SAMPLES)
            arena.aggregator()
            for device in ("a", "b"):
                arena.client(device)
            arena.federation.finish()
        judge(arena.proxy, defended=defended)


@both
def test_attack_listening_to_a_federation_with_a_shared_key(tmp_path: Path, defended: bool) -> None:
    """Here the defence is the key itself."""
    with broker_on(tmp_path / "broker", free()) as broker, Proxy(broker.port, keep=True) as proxy:
        federation = Federation(tmp_path / "federation", proxy.port, secret=defended)
        federation.configure(CANARIES)
        federation.features("a", rows=SAMPLES)
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device)
        federation.finish()
        federation.close()
        judge(proxy, defended=defended)
