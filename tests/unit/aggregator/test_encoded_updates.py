"""An encoded update from its manifest to the spool: decoded with the model that it started from, checked, recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.chain import INIT, ROUNDS, SCHEMA, TRAIN, accept, started
from helpers.damage import DAMAGE
from helpers.wire import ANN

from aggregator.chain import Chain
from aggregator.log import Log, Outcome
from aggregator.phases import Policy
from aggregator.receiver import Receiver
from aggregator.states import State
from floe import weights
from floe.coding import Coding
from floe.encode import encode_update
from floe.files import hash_of
from floe.keyring import Keyring
from floe.messages import Manifest
from floe.parcel import Buffers, Parcel, pack
from floe.plan import Plan
from floe.signing import verify
from floe.topics import DeviceChunk, DeviceManifest

PLAN = Plan(scaling="none", upload="int8")
RING = Keyring("chacha20-poly1305", bytes(32))
METRICS = '{"samples":40,"after":{"loss":0.5,"accuracy":0.5}}'
BASE = {"w": np.random.default_rng(0).normal(size=3000).astype(np.float32), "b": np.zeros(2, np.float32)}
TRAINED = {name: array + np.float32(0.01) for name, array in BASE.items()}
OPEN = State(TRAIN, stage="open", expected=frozenset({"ann"}), plan=PLAN)


class Line:
    """The receiver in a round that is open for ann, on a real chain."""

    def __init__(self, folder: Path, chain: Chain, log: Log) -> None:
        self.folder = folder
        self.chain = chain
        self.log = log
        self.ended: list[Outcome] = []
        self.start()

    def start(self) -> None:
        self.receiver = Receiver(
            Mock(federation="floe"), self.chain, Mock(), self.log, RING, Policy(ROUNDS, PLAN),
            folder=self.folder / "incoming", state=lambda: OPEN, ended=self.ended.append,
        )  # fmt: skip

    def take(self, file: Buffers) -> Outcome:
        """What becomes of a file that ann sends."""
        self.bring(self.packed(file))
        return self.ended[-1]

    def packed(self, file: Buffers) -> Parcel:
        assert self.chain.model is not None
        (self.folder / "sent").mkdir(exist_ok=True)
        return pack(self.folder / "sent", file, METRICS, RING, federation="floe", phase=TRAIN, kind="update",
                    sender="ann", base=self.chain.model.sha256)  # fmt: skip

    def bring(self, parcel: Parcel) -> None:
        header: dict[str, Any] = {"federation": "floe", "sender": "ann", "key": ANN.key, "proof": "", "seq": 1}
        payload = ANN.sign(Manifest(**header, core=parcel.core, envelope=parcel.envelope(RING, "main")))
        self.receiver.manifest(DeviceManifest("floe", "ann", "main", 1), verify(payload, Manifest), payload)
        for index in range(len(parcel.core.chunks)):
            self.receiver.chunk(DeviceChunk("floe", "ann", "main", 1, parcel.name, index), parcel.chunk(index))

    @property
    def spooled(self) -> Path:
        return self.chain.spool.path("ann", TRAIN, TRAIN)

    def left(self) -> list[str]:
        """What lies where updates come in."""
        return sorted(path.name for path in (self.folder / "incoming").iterdir())


def sent(coding: Coding = "int8", base: dict[str, Any] = BASE, trained: dict[str, Any] = TRAINED) -> Buffers:
    return encode_update(trained, base, {}, coding, {}, seed=0, device="ann", round=1).buffers


@contextmanager
def line_on(folder: Path, base: dict[str, Any]) -> Iterator[Line]:
    """Round 1 is open, and starts from this model."""
    with started(folder, plan=PLAN) as (chain, _, log):
        chain.open(State(INIT, stage="open", expected=frozenset({"a"}), plan=PLAN))
        accept(chain, log, INIT, "a", **base)
        chain.close(INIT, up=0, down=0)
        chain.open(OPEN)
        log.pin("ann", ANN.key)
        yield Line(folder, chain, log)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with line_on(tmp_path, BASE) as made:
        yield made


def test_it_is_spooled_as_full_weights_with_the_schema_of_its_base_and_recorded_with_their_hash(line: Line) -> None:
    assert line.take(sent()).outcome == "accepted"
    found = weights.read(line.spooled)
    assert found["b"].tolist() == TRAINED["b"].tolist()
    assert 0 < np.abs(found["w"] - TRAINED["w"]).max() <= 0.01001 / 127
    assert weights.read_layout_of(line.spooled).metadata == {"schema": SCHEMA.to_json()}
    (row,) = line.log.db.query("SELECT * FROM updates WHERE device = 'ann'")
    assert row["sha256"] == hash_of(line.spooled)
    assert row["bytes"] < line.spooled.stat().st_size / 2, "what came over the wire"
    assert line.left() == []


WRONG: dict[str, tuple[Buffers, str]] = {
    "weights as they are": (weights.buffers(TRAINED, {"schema": SCHEMA.to_json()}), "not encoded"),
    "another coding": (sent("float16"), "coded as float16, not int8"),
    "other tensors": (sent(trained={"w": TRAINED["w"]}), "tensor 'b'"),
    "no file of weights": ([memoryview(b"weights" * 9)], "header"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_the_plan_does_not_ask_for_is_rejected_and_leaves_nothing(line: Line, what: str) -> None:
    file, why = WRONG[what]
    ended = line.take(file)
    assert (ended.outcome, ended.reason) == ("rejected", "weights")
    assert why in ended.detail
    assert (line.left(), line.spooled.exists()) == ([], False)


def test_a_difference_that_makes_a_weight_infinite_is_rejected(tmp_path: Path) -> None:
    """Each number of it is finite, as are the base's."""
    zero, large, larger = ({**BASE, "w": np.full(3000, value, np.float32)} for value in (0, 1e38, 3e38))
    with line_on(tmp_path, larger) as line:
        ended = line.take(sent(base=zero, trained=large))
    assert (ended.outcome, ended.reason) == ("rejected", "weights")
    assert "tensor 'w' has inf" in ended.detail
    assert (line.left(), line.spooled.exists()) == ([], False)


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
def test_with_a_damaged_base_it_cannot_be_decoded_and_is_not_guessed(line: Line, damage: str) -> None:
    assert line.chain.model is not None
    (DAMAGE | {"missing": Path.unlink})[damage](line.chain.model.path)
    ended = line.take(sent())
    assert (ended.outcome, ended.reason) == ("rejected", "storage")
    assert f"{line.chain.model.path}: " in ended.detail
    assert (line.left(), line.spooled.exists()) == ([], False)


def test_killed_before_it_is_recorded_it_is_decoded_again_and_is_the_same(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel = line.packed(sent())
    with monkeypatch.context() as patched:
        patched.setattr(line.log, "update", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            line.bring(parcel)
    assert line.left() == ["ann.manifest", "ann.part"]
    decoded = line.spooled.read_bytes()
    line.spooled.unlink()
    line.start()
    line.bring(parcel)
    assert [ended.outcome for ended in line.ended] == ["accepted"]
    assert line.spooled.read_bytes() == decoded
