"""A wire that loses, repeats, delays and disorders: the models are the same, and only what is missing is sent again."""

from __future__ import annotations

import random

from helpers.federation import BIG, CHUNKS, Federation
from helpers.proxy import DROP, PASS, TWICE, Message, Proxy, Rule, Verdict


def run_two_rounds(federation: Federation, rule: Rule) -> Proxy:
    """Devices a and b, both behind one proxy."""
    federation.configure(BIG)
    with Proxy(federation.port, rule) as proxy:
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device, port=proxy.port)
        federation.finish()
    return proxy


def drop_chunks(*, upward: bool) -> Rule:
    dice = random.Random(1)

    def rule(message: Message) -> Verdict:
        lost = message.upward == upward and "/chunk/" in message.topic and dice.random() < 0.3
        return DROP if lost else PASS

    return rule


def test_a_round_ends_with_all_devices_when_30_percent_of_their_chunks_are_lost(
    federation: Federation, undisturbed: dict[int, str]
) -> None:
    proxy = run_two_rounds(federation, drop_chunks(upward=True))
    came, passed = proxy.count(upward=True, containing="/chunk/")
    lost = came.total() - passed.total()
    # Sums and the first model are transfers too; only the devices' two rounds have so many chunks.
    trained = federation.query("SELECT device, round FROM updates WHERE task = 'train' AND outcome = 'accepted'")
    assert len(trained) == 4
    assert lost > 0.2 * came.total(), "the proxy was to lose chunks"
    assert len(came) >= 4 * CHUNKS
    assert came.total() < 2 * len(came)
    assert max(passed.values()) == 1, "a chunk that got through was sent again"
    assert federation.models() == undisturbed


def test_every_device_gets_the_model_when_30_percent_of_its_chunks_are_lost(
    federation: Federation, undisturbed: dict[int, str]
) -> None:
    proxy = run_two_rounds(federation, drop_chunks(upward=False))
    came, passed = proxy.count(upward=False, containing="/chunk/")
    broadcast = {topic: n for topic, n in came.items() if "/to/" not in topic}
    served = {topic: n for topic, n in came.items() if "/to/" in topic}
    assert all(n == 2 for n in broadcast.values()), "the aggregator publishes each chunk once for both devices"
    assert served, "the proxy was to lose chunks"
    assert sum(served.values()) < sum(broadcast.values()), "more was sent again than had been lost"
    assert all(passed[topic] == 1 for topic in served), "a chunk that got through was sent again"
    assert federation.models() == undisturbed


def test_chunks_that_come_twice_change_nothing(federation: Federation, undisturbed: dict[int, str]) -> None:
    proxy = run_two_rounds(federation, lambda message: TWICE if "/chunk/" in message.topic else PASS)
    assert proxy.count(upward=True, containing="/chunk/")[0].total() > 4 * CHUNKS
    assert federation.models() == undisturbed


def test_every_message_twice_changes_nothing(federation: Federation, undisturbed: dict[int, str]) -> None:
    run_two_rounds(federation, lambda message: TWICE)
    assert federation.models() == undisturbed
    accepted = federation.query("SELECT count(*) AS n FROM updates WHERE outcome = 'accepted' AND task = 'train'")
    assert accepted == [{"n": 4}]


def test_chunks_out_of_order_change_nothing(federation: Federation, undisturbed: dict[int, str]) -> None:
    dice = random.Random(2)

    def shuffle(message: Message) -> Verdict:
        return Verdict(delay_s=0.3 * dice.random()) if "/chunk/" in message.topic else PASS

    run_two_rounds(federation, shuffle)
    assert federation.models() == undisturbed


def test_a_lost_manifest_want_or_answer_is_repeated(federation: Federation, undisturbed: dict[int, str]) -> None:
    seen: set[str] = set()

    def first_of_each(message: Message) -> Verdict:
        kind = message.topic.rsplit("/", 1)[-1]
        if kind not in ("manifest", "want", "answer") or message.topic in seen:
            return PASS
        seen.add(message.topic)
        return DROP

    run_two_rounds(federation, first_of_each)
    assert {topic.rsplit("/", 1)[-1] for topic in seen} == {"manifest", "want", "answer"}
    assert federation.models() == undisturbed


def test_a_lost_status_or_round_document_is_said_again(federation: Federation, undisturbed: dict[int, str]) -> None:
    """The first of each, on the way to the broker and on the way from it: a round must not hang on one message."""
    seen: set[tuple[bool, str]] = set()

    def first_of_each(message: Message) -> Verdict:
        kind = "round" if message.topic.endswith("/main/round") else message.topic.rpartition("device/")[2]
        if kind not in ("round", "a/status") or (message.upward, kind) in seen:
            return PASS
        seen.add((message.upward, kind))
        return DROP

    federation.configure({**BIG, "mqtt": {"port": federation.port, "keepalive_s": 5}})
    with Proxy(federation.port, first_of_each) as proxy:
        federation.start("aggregator", "aggregator", "--port", str(proxy.port))
        for device in ("a", "b"):
            federation.client(device, port=proxy.port)
        federation.finish(timeout_s=120.0)
    assert seen == {(True, "round"), (False, "round"), (True, "a/status"), (False, "a/status")}
    assert federation.models() == undisturbed
