"""What a device decides, and which answers it heeds, without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from helpers.wire import ANN, EVE, keyring

from edge_client.data.features import Features
from edge_client.device import Device
from edge_client.orders import decide, follow
from floe.errors import KeyFileError
from floe.identity import Identity
from floe.keyring import EnrolledKeyring, Keyring, Ring
from floe.messages import Answer, Base, Phase, Round, Status
from floe.parcel import pack
from floe.plan import Plan
from floe.schema import Schema
from floe.session import Received
from floe.settings import Config
from floe.settings import Device as DeviceSettings
from floe.topics import AggregatorStatus, AnswerTo, CurrentRound, DeviceStatus, Topic

PHASE = Phase("main", 1, 3, "train")
ORDER = Round(
    federation="f", sender="main", key="k", proof="", seq=1, phase=PHASE, state="open", plan=Plan(),
    base=Base(sha256="b" * 64, transfer="c" * 32),
)  # fmt: skip


def test_a_device_without_the_base_fetches_it_before_it_works() -> None:
    assert decide(ORDER, selected=True, done=False, base="", working_on=None) == "fetch"
    assert decide(ORDER, selected=True, done=False, base="b" * 64, working_on=None) == "work"


def test_a_device_works_once_and_only_when_it_is_selected() -> None:
    assert decide(None, selected=True, done=False, base="", working_on=None) == "nothing"
    assert decide(ORDER, selected=False, done=False, base="b" * 64, working_on=None) == "nothing"
    assert decide(ORDER, selected=True, done=True, base="b" * 64, working_on=None) == "nothing"
    assert decide(ORDER, selected=True, done=False, base="b" * 64, working_on=PHASE) == "nothing"


def test_work_for_a_round_that_is_over_is_cancelled() -> None:
    old = Phase("main", 1, 2, "train")
    assert decide(ORDER, selected=True, done=False, base="b" * 64, working_on=old) == "cancel"
    over = msgspec.structs.replace(ORDER, state="finished")
    assert decide(over, selected=True, done=False, base="b" * 64, working_on=PHASE) == "cancel"


def test_between_the_rounds_and_after_the_last_the_newest_model_is_fetched() -> None:
    for state in ("waiting", "finished"):
        rest = msgspec.structs.replace(ORDER, state=state)
        assert decide(rest, selected=False, done=False, base="", working_on=None) == "fetch"
        assert decide(rest, selected=True, done=False, base="b" * 64, working_on=None) == "nothing"


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({"staleness": 2}, True),
        ({"staleness": 1}, False),
        ({"staleness": 0}, False),
        ({"staleness": 2, "state": "waiting"}, True),
        ({"staleness": 2, "state": "finished"}, False),
        ({"staleness": 2, "phase": Phase("main", 1, 5, "evaluate")}, False),
        ({"staleness": 9, "phase": Phase("main", 2, 5, "train")}, False),
        ({"staleness": 9, "phase": Phase("main", 1, 2, "train")}, False),
    ],
)
def test_what_was_begun_is_followed_as_long_as_it_will_be_merged(changes: dict[str, Any], late: bool) -> None:
    newest = msgspec.structs.replace(ORDER, **({"phase": Phase("main", 1, 5, "train")} | changes))
    assert follow(newest, ORDER, under_way=True) == (ORDER if late else newest)
    assert follow(newest, ORDER, under_way=False) == newest
    assert follow(newest, None, under_way=False) == newest


RING = keyring("chacha20-poly1305")
MAIN = Identity("main", Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96))))
STRANGER = Identity("main", EVE.private)


@pytest.fixture
def ann(tmp_path: Path) -> Device:
    """A device that is not connected, with one parcel in its outbox."""
    rows, labels = np.zeros((2, 1), np.float32), np.array([0, 1])
    features = Features(rows, labels, rows, labels, Schema((1,), 2))
    settings = Config(device=DeviceSettings(id="ann"), folder=tmp_path, file=tmp_path / "floe.toml")
    device = Device(settings, features, ANN, RING, tmp_path)
    folder = tmp_path / "outbox"
    device._outbox.put(
        pack(folder, None, "{}", RING, federation="floe", phase=PHASE, kind="update", sender="ann", base="")
    )
    return device


def hear(device: Device, topic: Topic, payload: bytes) -> None:
    device._receive(Received(str(topic), payload, 0, 0, False))


def order(device: Device, speaker: Identity, ring: Keyring, seq: int) -> None:
    proof = ring.proof("floe", "main", speaker.key)
    told = msgspec.structs.replace(ORDER, federation="floe", key=speaker.key, proof=proof, seq=seq)
    hear(device, CurrentRound("floe", "main"), speaker.sign(told))


def answer(device: Device, to_key: str, reason: str = "") -> None:
    (parcel,) = device._outbox.due(1e9)
    fields = {
        "federation": "floe", "sender": "main", "key": MAIN.key, "proof": RING.proof("floe", "main", MAIN.key),
        "seq": 2, "to": "ann", "to_key": to_key, "transfer": parcel.name, "phase": PHASE,
        "outcome": "rejected" if reason else "accepted", "reason": reason,
    }  # fmt: skip
    hear(device, AnswerTo("floe", "main", "ann"), MAIN.sign(Answer(**fields)))


def test_an_answer_to_a_copy_of_our_manifest_under_another_key_ends_nothing(ann: Device) -> None:
    answer(ann, EVE.key, "unknown-key")
    ann._outbox.hurry()
    answer(ann, EVE.key)
    assert ann._outbox.holds(PHASE)
    assert not ann._memory.answered(PHASE)


def test_an_answer_to_our_own_key_ends_the_transfer(ann: Device) -> None:
    answer(ann, ANN.key)
    assert not ann._outbox.holds(PHASE)
    assert ann._memory.answered(PHASE)


def test_a_device_whose_name_is_taken_stops(ann: Device) -> None:
    with pytest.raises(KeyFileError, match="another device is known under the name 'ann'"):
        answer(ann, ANN.key, "unknown-key")


def test_the_first_to_speak_as_the_aggregator_without_the_secret_is_not_believed(
    ann: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    for ring in (Keyring("chacha20-poly1305", bytes(32)), keyring("plaintext")):
        order(ann, STRANGER, ring, seq=1)
    assert ann._newest is None
    assert "does not prove that it knows our secret" in capsys.readouterr().err
    order(ann, MAIN, RING, seq=1)
    order(ann, STRANGER, keyring("plaintext"), seq=9)
    assert ann._newest is not None
    assert ann._newest.key == MAIN.key


def test_a_status_of_the_aggregator_that_is_played_again_makes_nobody_speak(ann: Device) -> None:
    def says(seq: int) -> bool:
        """Whether the device announces its parcel again at once."""
        ann._outbox.due(1e9)
        proof = RING.proof("floe", "main", MAIN.key)
        status = Status(federation="floe", sender="main", key=MAIN.key, proof=proof, seq=seq, state="online")
        hear(ann, AggregatorStatus("floe", "main"), MAIN.sign(status))
        return bool(ann._outbox.due(0.0))

    assert [says(seq) for seq in (5, 5, 4, 5, 6, 6)] == [True, False, False, False, True, False]


def test_an_enrolled_device_that_has_lost_its_number_goes_on_above_its_last_status(ann: Device, tmp_path: Path) -> None:
    ring = EnrolledKeyring("aes-256-gcm", None, X25519PrivateKey.generate(), Ring())
    enrolled = Device(ann._config, ann._worker._features, ANN, ring, tmp_path / "again")
    last = Status(federation="floe", sender="ann", key=ANN.key, proof="", seq=2**40, state="idle")
    topic = str(DeviceStatus("floe", "ann"))
    enrolled._receive(Received(topic, EVE.sign(msgspec.structs.replace(last, key=EVE.key)), 0, 0, True))
    assert enrolled.wire.make(Status, state="idle")[0].seq < 2**40
    enrolled._receive(Received(topic, ANN.sign(last), 0, 0, True))
    assert enrolled.wire.make(Status, state="idle")[0].seq > 2**40
