"""Encoded updates and models over a broker: fewer bytes, the simulation's models, and the same ones after every kill.

`kill_steps/encoded*.txt` has the steps that encodings add to those of `test_kill_steps.py`, which says more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from helpers.federation import Federation, Sections
from helpers.kills import aggregator_at, device_at, kill_everywhere, table, unknown
from helpers.plain import SECTIONS
from helpers.process import Process

from floe import weights
from floe.coding import is_half
from floe.files import hash_of

Make = Callable[[str], AbstractContextManager[Federation]]

ROUNDS = 40  # more than the kills need
BALLAST = 100
WAYS = [("int8", "float16"), ("float16", "float32"), ("float32", "float16"), ("weights", "float16")]
ENCODED: Sections = {
    "rounds": {"count": ROUNDS, "devices": 2, "quorum": 2, "grace_s": 3600.0, "deadline_s": 3600.0},
    "plan": {**SECTIONS["plan"], "hidden": [BALLAST], "upload": "int8", "download": "float16"},
    "device": {"telemetry_s": 0.0},
}


def with_rounds(count: int) -> Sections:
    return {**ENCODED, "rounds": {**ENCODED["rounds"], "count": count}}


def sections(upload: str, download: str, count: int = 3) -> Sections:
    plan = {"hidden": [BALLAST], "scaling": "standard", "upload": upload, "download": download}
    return {"rounds": {"count": count, "devices": 2}, "plan": plan}


def run(federation: Federation, upload: str, download: str) -> None:
    federation.configure(sections(upload, download))
    federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.finish()


def bytes_of(federation: Federation) -> tuple[int, int]:
    """Of the last round, up and down."""
    (row,) = federation.query("SELECT bytes_up, bytes_down FROM rounds WHERE round = 3 AND task = 'train'")
    return row["bytes_up"], row["bytes_down"]


@pytest.fixture(scope="module")
def plain_bytes(new_federation: Make) -> tuple[int, int]:
    """What a round costs without encodings."""
    with new_federation("plain") as federation:
        run(federation, "weights", "float32")
        return bytes_of(federation)


@pytest.mark.parametrize(("upload", "download"), WAYS)
def test_encoded_it_is_the_simulations_model_in_fewer_bytes(
    new_federation: Make, tmp_path: Path, plain_bytes: tuple[int, int], upload: str, download: str
) -> None:
    with new_federation("encoded") as federation:
        run(federation, upload, download)
        simulated = Federation(tmp_path / "simulated", federation.port, secret=False)
        simulated.configure(sections(upload, download))
        for device in ("a", "b"):
            simulated.features(device)
        simulated.start("simulate", "simulate").wait()
        simulated.close()
        assert sorted(federation.models()) == [0, 1, 2, 3]
        assert simulated.models() == federation.models()
        up, down = (plain / now for plain, now in zip(plain_bytes, bytes_of(federation), strict=True))
        assert up > {"int8": 3.8, "float16": 1.9, "float32": 1.0, "weights": 0.99}[upload]
        assert down > (1.9 if download == "float16" else 0.99)


def test_what_stays_on_the_disk_is_decoded(federation: Federation) -> None:
    run(federation, "int8", "float16")
    model, upload = weights.read(federation.model(3)), federation.upload("a")
    assert {name: array.dtype for name, array in upload.items()} == dict.fromkeys(upload, np.dtype("<f4"))
    assert is_half(model["ballast"].reshape(-1))
    assert not is_half(upload["ballast"].reshape(-1))
    assert model["scaling.mean"].dtype == np.float64
    exported = federation.folder / "out.safetensors"
    assert federation.start("export", "models", "export", "latest", "--to", exported.name).wait() == 0
    assert exported.read_bytes() == federation.model(3).read_bytes(), "of float32, and not as it travels"
    assert hash_of(exported) == federation.models()[3]
    assert model["ballast"].dtype == np.float32


def test_an_update_that_is_encoded_otherwise_than_the_plan_asks_for_is_rejected(federation: Federation) -> None:
    """The device of an older Floe, which knows nothing of encodings, sends its weights as they are."""
    federation.configure({**sections("int8", "float32", count=1), "rounds": {"count": 1, "devices": 1, "quorum": 1}})
    federation.aggregator()
    federation.client("a", by=("helpers.unencoded", "--"))
    row = federation.until("SELECT * FROM updates WHERE task = 'train'")
    assert (row["outcome"], row["reason"]) == ("rejected", "weights")
    assert "not encoded" in row["detail"]


@pytest.fixture(scope="module")
def notes(new_federation: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The steps that the processes take."""
    notes = tmp_path_factory.mktemp("notes")
    with new_federation("noted") as federation:
        federation.configure(with_rounds(3))
        federation.aggregator(by=("helpers.killer", "note", str(notes / "encoded.txt"), "--"))
        federation.client("a")
        federation.client("b", by=("helpers.killer", "note", str(notes / "encoded_device.txt"), "--"))
        federation.finish()
        for path in notes.glob("*.txt"):
            path.with_suffix(".steps").write_text(path.read_text())  # before they are told to end
    return notes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The hash of every model, by round: the simulation's."""
    simulated = Federation(tmp_path_factory.mktemp("undisturbed"), 1, secret=False)
    simulated.configure(ENCODED)
    for device in ("a", "b"):
        simulated.features(device)
    simulated.start("simulate", "simulate").wait()
    simulated.close()
    return simulated.models()


@pytest.mark.parametrize(("name", "known"), [("encoded", "aggregator"), ("encoded_device", "device")])
def test_the_table_has_every_step_that_encodings_add(notes: Path, name: str, known: str) -> None:
    new = unknown((notes / f"{name}.steps").read_text().splitlines(), known, name)
    assert new == [], "\n".join(
        [f"nothing kills at these yet: add them to kill_steps/{name}.txt, where they come", *new]
    )


def come_to_an_end(federation: Federation, models: dict[int, str]) -> None:
    rounds = max(federation.models(), default=0) + 1
    federation.configure(with_rounds(rounds))
    federation.aggregator()
    federation.finish()
    assert federation.models() == {round_: models[round_] for round_ in range(rounds + 1)}
    assert federation.query("SELECT * FROM updates WHERE outcome != 'accepted' AND task = 'train'") == []


def test_an_aggregator_killed_while_it_decodes_or_encodes_makes_the_same_models(
    new_federation: Make, undisturbed: dict[int, str]
) -> None:
    def others(federation: Federation) -> None:
        federation.configure(ENCODED)
        federation.client("a")
        federation.client("b")

    def end(federation: Federation) -> None:
        come_to_an_end(federation, undisturbed)

    kill_everywhere(table("encoded"), new_federation, others, aggregator_at, end)


def test_a_device_killed_while_it_encodes_or_decodes_makes_the_same_models(
    new_federation: Make, undisturbed: dict[int, str]
) -> None:
    aggregators: list[Process] = []

    def others(federation: Federation) -> None:
        federation.configure(ENCODED)
        federation.client("a")
        aggregators.append(federation.aggregator())

    def end(federation: Federation) -> None:
        aggregators[-1].interrupt()
        federation.client("b")
        come_to_an_end(federation, undisturbed)

    kill_everywhere(table("encoded_device"), new_federation, others, device_at("b"), end)
