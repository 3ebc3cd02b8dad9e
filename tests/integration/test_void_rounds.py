"""A plan that no device can follow: when it has been mended, the rounds go on by themselves."""

from __future__ import annotations

from helpers.federation import Federation, Sections
from helpers.process import Process

REFUSED = (
    "SELECT round FROM updates WHERE task = ? AND outcome = 'rejected' AND reason = 'device' "
    "GROUP BY round HAVING count(*) = 2"
)
VOID = "SELECT text FROM events WHERE kind = 'void'"
WRONG: Sections = {"plan": {"model": "not-configured"}}


def mended(federation: Federation, aggregator: Process, sections: Sections | None = None) -> None:
    """The operator stops the aggregator, mends the plan, and starts it again."""
    assert aggregator.interrupt() == 130
    federation.configure(sections)
    federation.aggregator()


def test_a_first_phase_that_all_refused_begins_again_with_the_plan_that_was_mended(federation: Federation) -> None:
    federation.configure(WRONG)
    aggregator = federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.until(REFUSED, "sums")
    mended(federation, aggregator)
    federation.finish()
    assert "not-configured" in federation.until(VOID)["text"]
    closed = federation.query("SELECT task FROM rounds WHERE state = 'closed' AND epoch = 2 ORDER BY rowid")
    assert [row["task"] for row in closed] == ["sums", "init", "train", "train", "evaluate"]


def test_a_training_round_that_all_refused_is_void_and_the_next_starts_from_the_same_model(
    federation: Federation,
) -> None:
    aggregator = federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.finish()
    model = federation.models()[2]
    mended(federation, aggregator, {"rounds": {"count": 4}, **WRONG})
    federation.until("SELECT * FROM rounds WHERE round = 3 AND state = 'open'")
    federation.until(REFUSED, "train")
    mended(federation, federation.processes[-1], {"rounds": {"count": 4}})
    federation.until("SELECT * FROM rounds WHERE round = 4 AND task = 'train' AND state = 'closed'")
    assert "not-configured" in federation.until(VOID)["text"]
    assert federation.query("SELECT base_sha256 FROM rounds WHERE round = 4 AND task = 'train'") == [
        {"base_sha256": model}
    ]
    assert sorted(federation.models()) == [0, 1, 2, 4]
