"""What devices send wrongly: each refused with its reason, recorded, and the rounds of the honest go on."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.federation import LINEAGE, NAME, Federation
from helpers.peer import GOOD, Peer
from msgspec.structs import replace

from floe import weights
from floe.identity import load_identity
from floe.keyring import Keyring
from floe.messages import Answer, Manifest, Round, Status, Want
from floe.parcel import Parcel
from floe.report import Metrics, Report
from floe.signing import DOMAIN, signature
from floe.topics import AnswerTo, CurrentRound, DeviceManifest, DeviceStatus, filter_of
from floe.transfer import from_ranges

STRANGER = "stranger"
GIGABYTE = (2**30).to_bytes(8, "little") + b"{}" * 50


@pytest.fixture(scope="module")
def arena(new_federation: Any) -> Iterator[Federation]:
    """Rounds without end of one honest device; a round with a silent one closes after three seconds."""
    with new_federation("arena") as federation:
        federation.configure({"rounds": {"count": 100_000, "devices": 1, "quorum": 1, "deadline_s": 3.0}})
        federation.aggregator()
        federation.client("honest")
        federation.until("SELECT * FROM rounds WHERE round = 1 AND state = 'closed'")
        yield federation


@pytest.fixture
def rogue(arena: Federation, request: pytest.FixtureRequest) -> Iterator[Peer]:
    """A device of its own for each test. At its end the honest must close another round, and nobody has died."""
    device = f"rogue-{abs(hash(request.node.name)) % 10**8}"
    with Peer(arena, device) as peer:
        yield peer
        peer.leave()
    before = arena.query("SELECT max(round) AS n FROM rounds WHERE state = 'closed'")[0]["n"]
    arena.until(
        "SELECT * FROM updates u JOIN rounds r USING (lineage, epoch, round, task) WHERE r.state = 'closed' AND "
        "device = 'honest' AND outcome = 'accepted' AND round > ?",
        before,
    )
    assert all(process.running for process in arena.processes)


def event(peer: Peer, reason: str) -> str:
    """What the log says of a message that could not become an update."""
    sql = "SELECT text FROM events WHERE kind = 'refused' AND device = ? AND reason = ?"
    return str(peer.federation.until(sql, peer.device, reason)["text"])


def with_weights(change: Callable[[dict[str, weights.AnyArray]], dict[str, weights.AnyArray]]) -> Any:
    return lambda peer, order: peer.pack(order, change(peer.base_arrays(order)))


def first_nan(arrays: dict[str, weights.AnyArray]) -> dict[str, weights.AnyArray]:
    array = next(iter(arrays.values())).copy()
    array.flat[0] = np.nan
    return {**arrays, next(iter(arrays)): array}


def with_schema(peer: Peer, order: Round) -> Parcel:
    schema = json.loads(peer.schema(order))
    path = peer.folder / "renamed.safetensors"
    metadata = {"schema": json.dumps({**schema, "features": ["a", "b", "humidity"]})}
    weights.write(path, peer.base_arrays(order), metadata)
    return peer.pack_file(order, path.read_bytes())


WRONG_CONTENT: dict[str, tuple[Any, str, str]] = {
    "a shape that differs": (with_weights(lambda w: {n: a[None] for n, a in w.items()}), "weights", "shape"),
    "another dtype": (with_weights(lambda w: {n: a.astype(np.float64) for n, a in w.items()}), "weights", "float64"),
    "a tensor too many": (with_weights(lambda w: {**w, "zzz": np.zeros(1, np.float32)}), "weights", "'zzz' is not"),
    "a tensor too few": (with_weights(lambda w: dict(list(w.items())[1:])), "weights", "is missing"),
    "a weight that is not a number": (with_weights(first_nan), "weights", "nan"),
    "other features": (with_schema, "schema", "'humidity'"),
    "a pickle": (lambda p, o: p.pack_file(o, pickle.dumps({"w": [1.0] * 100})), "weights", "header"),
    "a header that claims a gigabyte": (lambda p, o: p.pack_file(o, GIGABYTE), "weights", "header of 1073741824"),
    "an accuracy of 2": (lambda p, o: p.pack(o, report={"before": {"loss": 1, "accuracy": 2}}), "metrics", "accuracy"),
    "weights from no rows": (lambda p, o: p.pack(o, report=replace(GOOD, samples=0)), "metrics", "no rows"),
    "no metrics": (lambda p, o: p.pack(o, report=Report(samples=3)), "metrics", "neither"),
    "a device that gives up": (lambda p, o: p.pack(o, {}, Report(failure="it is on fire")), "device", "on fire"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_CONTENT)
def test_an_update_is_rejected_for_its_content(rogue: Peer, case: str) -> None:
    make, reason, words = WRONG_CONTENT[case]
    parcel = make(rogue, rogue.order())
    answer = rogue.deliver(parcel)
    assert (answer.outcome, answer.reason) == ("rejected", reason)
    assert words in answer.detail
    row = rogue.federation.query("SELECT * FROM updates WHERE transfer = ?", parcel.name)[0]
    assert (row["outcome"], row["reason"], row["detail"]) == ("rejected", reason, answer.detail)


WRONG_MANIFEST: dict[str, tuple[Mapping[str, Any], str, str, str]] = {
    "a size over the cap": ({"size": 10**12, "chunk_size": 2**30}, "rejected", "oversized", "at most"),
    "a size that its chunks do not have": ({"chunks": ()}, "rejected", "malformed", "0 chunk hashes"),
    "chunks of another size": ({"chunk_size": 1024}, "rejected", "malformed", "chunk_size 1024"),
    "a round to come": ({"round": 90_000}, "late", "round", "90000"),
    "another epoch": ({"epoch": 7}, "rejected", "round", "epoch 7"),
    "another base": ({"base": "0" * 64}, "rejected", "base", "000000000000"),
    "the kind of a model": ({"kind": "model"}, "rejected", "malformed", "kind"),
    "a core of another federation": ({"federation": "other"}, "rejected", "malformed", "federation"),
    "another suite": ({"suite": "plaintext"}, "rejected", "suite", "plaintext"),
    "another salt than it was sealed with": ({"salt": "0" * 32}, "rejected", "unsealing", "content key"),
}


@pytest.mark.parametrize("case", WRONG_MANIFEST)
def test_an_update_is_refused_for_its_manifest_before_a_chunk_is_asked_for(rogue: Peer, case: str) -> None:
    changes, outcome, reason, words = WRONG_MANIFEST[case]
    manifest = rogue.manifest(rogue.pack(rogue.order()), **changes)
    rogue.announce(manifest)
    answer = rogue.listen(Answer)
    assert (answer.outcome, answer.reason) == (outcome, reason)
    assert words in answer.detail
    row = rogue.federation.query("SELECT * FROM updates WHERE transfer = ?", answer.transfer)[0]
    assert (row["outcome"], row["reason"], row["bytes"]) == (outcome, reason, 0)


def signed(peer: Peer, text: bytes) -> bytes:
    """Bytes that end as a message does, with a signature that verifies."""
    return text[:-1] + f',"sig":"{signature(DOMAIN + text, peer.identity.private)}"}}'.encode()


def resigned(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Peer, Manifest], bytes]:
    return lambda peer, m: signed(peer, json.dumps(change(json.loads(msgspec.json.encode(m)))).encode())


WRONG_BYTES: dict[str, tuple[Callable[[Peer, Manifest], bytes], str, str]] = {
    "nothing": (lambda p, m: b"", "signature", "no signature"),
    "random bytes": (lambda p, m: bytes(range(256)), "signature", "no signature"),
    "wrong JSON": (lambda p, m: signed(p, b'{"floe":1,"type":}'), "malformed", "not JSON"),
    "a list": (lambda p, m: signed(p, b"[1]"), "malformed", ""),
    "a field too many": (resigned(lambda m: {**m, "admin": True}), "malformed", "admin"),
    "a field too few": (resigned(lambda m: {k: v for k, v in m.items() if k != "core"}), "malformed", "core"),
    "a name that is a path": (resigned(lambda m: {**m, "sender": "../../etc"}), "malformed", "sender"),
    "an unknown version": (resigned(lambda m: {**m, "floe": 2}), "unknown-version", "version 2"),
    "another federation": (resigned(lambda m: {**m, "federation": "other"}), "not-for-us", "'other'"),
    "the name of another device": (resigned(lambda m: {**m, "sender": "honest"}), "not-for-us", "'honest'"),
    "an altered byte": (lambda p, m: p.identity.sign(m).replace(b'"size":', b'"size":1'), "signature", "verify"),
    "200 KB": (lambda p, m: p.identity.sign(m) + b" " * 200_000, "oversized", "at most 131072"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_BYTES)
def test_bytes_that_are_no_manifest_are_refused_and_recorded(rogue: Peer, case: str) -> None:
    make, reason, words = WRONG_BYTES[case]
    parcel = rogue.pack(rogue.order())
    rogue.announce(rogue.manifest(parcel), make(rogue, rogue.manifest(parcel)))
    assert words in event(rogue, reason)
    assert rogue.federation.query("SELECT * FROM updates WHERE transfer = ?", parcel.name) == []


def test_an_altered_chunk_is_refused_and_asked_for_again(rogue: Peer) -> None:
    parcel = rogue.pack(rogue.order())
    rogue.announce(rogue.manifest(parcel))
    rogue.serve(parcel, lambda index, chunk: chunk[:-1] + bytes([chunk[-1] ^ 1]))
    assert "chunk 0 does not have the hash" in event(rogue, "chunk")
    rogue.serve(parcel)
    assert rogue.answer(parcel.name).outcome == "accepted"


@pytest.mark.parametrize("index", [1, 1023, 10**9])
def test_a_chunk_that_the_manifest_does_not_have_is_refused_and_the_update_goes_on(rogue: Peer, index: int) -> None:
    parcel = rogue.pack(rogue.order())
    rogue.announce(rogue.manifest(parcel))
    want = rogue.listen(Want)
    rogue.send_chunk(parcel, index, b"x" * 100)
    assert f"chunk {index} of a transfer of 1" in event(rogue, "chunk")
    for right in from_ranges(want.ranges, 1):
        rogue.send_chunk(parcel, right, parcel.chunk(right))
    assert rogue.answer(parcel.name).outcome == "accepted"


def test_a_chunk_longer_than_its_place_is_refused(rogue: Peer) -> None:
    parcel = rogue.pack(rogue.order())
    rogue.announce(rogue.manifest(parcel))
    rogue.serve(parcel, lambda index, chunk: chunk + b"\0" * 1_000_000)
    assert "chunk 0 of 100" in event(rogue, "chunk")
    rogue.serve(parcel)
    assert rogue.answer(parcel.name).outcome == "accepted"


def test_a_replayed_manifest_gets_the_first_answer_again_and_no_second_row(rogue: Peer) -> None:
    parcel = rogue.pack(rogue.order())
    first = rogue.deliver(parcel)
    rogue.announce(rogue.manifest(parcel))
    again = rogue.answer(parcel.name)
    assert (first.outcome, again.outcome) == ("accepted", "accepted")
    assert len(rogue.federation.query("SELECT * FROM updates WHERE transfer = ?", parcel.name)) == 1


def test_a_second_update_for_a_round_is_refused(rogue: Peer) -> None:
    order = rogue.order()
    first, second = rogue.pack(order), rogue.pack(order)
    rogue.announce(rogue.manifest(second))
    rogue.listen(Want)
    rogue.announce(rogue.manifest(first))
    assert rogue.answer(second.name).outcome == "superseded"
    rogue.serve(first)
    assert rogue.answer(first.name).outcome == "accepted"


def test_a_second_key_under_one_id_is_refused_and_ends_nothing_of_the_first(rogue: Peer) -> None:
    order = rogue.order()
    parcel = rogue.pack(order)
    other = load_identity(rogue.folder / STRANGER, rogue.device)
    mine = rogue.identity
    rogue.identity = other
    rogue.announce(rogue.manifest(parcel))
    answer = rogue.answer(parcel.name)
    assert (answer.outcome, answer.reason, answer.to_key) == ("rejected", "unknown-key", other.key)
    assert rogue.federation.query("SELECT * FROM updates WHERE transfer = ?", parcel.name) == []
    assert "another key was seen first" in event(rogue, "unknown-key")
    rogue.identity = mine
    answer = rogue.deliver(parcel)
    assert (answer.outcome, answer.to_key) == ("accepted", mine.key)


def test_a_strangers_copy_of_a_devices_manifest_does_not_stop_the_device(arena: Federation, rogue: Peer) -> None:
    """Without secret.key, with the device's own update under a key of its own: what it learns is nobody's end."""
    overhears = [filter_of(kind, federation=NAME, device="honest") for kind in (DeviceManifest, AnswerTo)]
    with Peer(arena, f"{rogue.device}-copy", stranger=True, overhears=overhears) as stranger:
        copied = stranger.listen(Manifest, lambda manifest: manifest.key != stranger.identity.key)
        forged = replace(copied, key=stranger.identity.key, proof="")
        topic = DeviceManifest(NAME, "honest", LINEAGE, copied.core.round)
        stranger.wire.send_bytes(topic, stranger.identity.sign(forged))
        answer = stranger.listen(Answer, lambda answer: answer.reason == "unknown-key")
    assert (answer.to, answer.to_key) == ("honest", stranger.identity.key)
    outcome = "SELECT outcome FROM updates WHERE transfer = ?"
    assert arena.until(outcome, answer.transfer)["outcome"] == "accepted"


def test_another_secret_key_is_named_as_the_reason(rogue: Peer) -> None:
    rogue.keyring = Keyring(rogue.keyring.suite, b"another secret, 32 bytes of it..")
    answer = rogue.deliver(rogue.pack(rogue.order()))
    assert (answer.outcome, answer.reason) == ("rejected", "unsealing")
    assert "another secret.key?" in answer.detail


def test_a_status_that_is_forged_takes_nobody_offline(rogue: Peer) -> None:
    topic = DeviceStatus(NAME, "honest")
    for sender in ("honest", rogue.device):
        forged = Status(**rogue.header(sender), seq=2**50, state="offline")
        rogue.wire.send_bytes(topic, rogue.identity.sign(forged))
    log = "SELECT * FROM events WHERE device = 'honest' AND reason = ?"
    rogue.federation.until(log, "unknown-key")
    rogue.federation.until(log, "not-for-us")
    state = rogue.federation.query("SELECT state FROM devices WHERE device = 'honest'")[0]["state"]
    assert state != "offline"


def test_a_forged_answer_makes_no_device_forget(arena: Federation, rogue: Peer) -> None:
    """A member, but without the aggregator's key, speaks in its name to the honest device."""
    order = rogue.order()
    update = arena.until("SELECT * FROM updates WHERE device = 'honest' AND outcome = 'accepted' ORDER BY id DESC")
    forged = Answer(
        **rogue.header(LINEAGE), seq=2**50, to="honest", to_key=rogue.identity.key,
        transfer=update["transfer"], phase=order.phase, outcome="accepted",
    )  # fmt: skip
    rogue.wire.send_bytes(AnswerTo(NAME, LINEAGE, "honest"), rogue.identity.sign(forged))
    honest = next(process for process in arena.processes if process.log.stem == "honest")
    arena.wait(lambda: "/to/honest/answer: unknown-key" in honest.said(), "the forged answer was to be refused")


def test_an_old_round_played_again_is_refused(arena: Federation, rogue: Peer) -> None:
    rogue.order()
    old = rogue.last_round
    later = rogue.order()
    assert later.seq > json.loads(old)["seq"]
    rogue.wire.send_bytes(CurrentRound(NAME, LINEAGE), old)
    honest = next(process for process in arena.processes if process.log.stem == "honest")
    arena.wait(lambda: "older than a round document" in honest.said(), "the old round was to be refused")


def test_a_manifest_of_one_device_sent_again_by_another_is_refused(rogue: Peer) -> None:
    parcel = rogue.pack(rogue.order())
    payload = rogue.identity.sign(rogue.manifest(parcel))
    with Peer(rogue.federation, f"{rogue.device}-2") as thief:
        thief.wire.send_bytes(DeviceManifest(NAME, thief.device, LINEAGE, parcel.core.round), payload)
        assert rogue.device in event(thief, "not-for-us")


def test_metrics_at_the_edge_of_what_is_possible_are_taken(rogue: Peer) -> None:
    """The other side of the refusals above: strange is not wrong."""
    edge = Metrics(loss=-1e300, accuracy=1.0, roc_auc=0.0)
    answer = rogue.deliver(rogue.pack(rogue.order(), report=Report(samples=1, test_samples=0, before=edge)))
    assert answer.outcome == "accepted"
