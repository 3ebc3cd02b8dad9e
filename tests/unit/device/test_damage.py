"""Each file that a device reads when it starts, damaged while it was down: set aside and fetched or made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.damage import DAMAGE, content_of
from helpers.wire import PHASE, keyring

from edge_client.download import Download
from edge_client.local import LocalModels
from edge_client.outbox import Outbox
from floe import weights
from floe.errors import KeyFileError, StoreError
from floe.files import hash_of
from floe.identity import load_identity
from floe.messages import Manifest, Phase
from floe.parcel import Parcel, pack
from floe.sequence import Sequence

RING = keyring("chacha20-poly1305")
ONE, TWO, THREE = (Phase("main", 1, number, "train") for number in (1, 2, 3))


def _model(folder: Path) -> Parcel:
    source = folder / "model"
    weights.write(source, {"w": np.full(40_000, 1, "<f4")})  # three chunks
    return pack(
        folder, source, "{}", RING, federation="floe", phase=PHASE, kind="model", sender="main", base=hash_of(source)
    )


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ending", ["json", "chunks"])
def test_a_damaged_result_is_set_aside_and_its_phase_is_done_again(
    tmp_path: Path, ending: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parcel = _model(tmp_path)
    path = parcel.chunks.with_suffix(f".{ending}")
    DAMAGE[damage](path)
    bad = content_of(path)
    outbox = Outbox(tmp_path)
    assert not outbox.holds(PHASE)
    assert outbox.due(0.0) == []
    assert content_of(path.with_name(f"{path.name}.damaged")) == bad
    assert f"{parcel.name}.json: set aside" in capsys.readouterr().err


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["base.safetensors", "base.part"])
def test_a_damaged_base_is_fetched_again(tmp_path: Path, name: str, damage: str) -> None:
    parcel = _model(tmp_path)
    (tmp_path / name).write_bytes(parcel.chunks.read_bytes() if name == "base.part" else b"a model of before, in full")
    DAMAGE[damage](tmp_path / name)
    download = Download(tmp_path, RING, "main", 10**6)
    envelope = parcel.envelope(RING, "*")
    manifest = Manifest(federation="floe", sender="main", key="k", proof="", seq=1, core=parcel.core, envelope=envelope)
    download.announce(manifest, retained=True, now=0.0)
    for index in range(len(parcel.core.chunks)):
        download.add(parcel.name, index, parcel.chunk(index), 0.0)
    assert download.sha256 == parcel.core.base
    assert hash_of(tmp_path / "base.safetensors") == parcel.core.base
    assert (tmp_path / f"{name}.damaged").is_dir() == (damage == "folder")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_local_model_is_set_aside_and_the_one_before_it_taken(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = LocalModels(tmp_path)
    for phase in (ONE, TWO):
        local.keep(phase, {"w": np.full(10, phase.round, np.float32)}, {"schema": "{}"})
    path = tmp_path / "1-2.safetensors"
    assert local.before(THREE) == path
    DAMAGE[damage](path)
    bad = content_of(path)
    assert local.before(THREE) == tmp_path / "1-1.safetensors"
    assert content_of(tmp_path / "1-2.safetensors.damaged") == (bad if damage != "unreadable" else ("link", path.name))
    assert "1-2.safetensors: " in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["empty", "random", "folder", "unreadable"])
def test_a_damaged_sequence_or_key_stops_the_start_and_stays(tmp_path: Path, damage: str) -> None:
    Sequence(tmp_path / "sequence")
    load_identity(tmp_path, "ann")
    for path in (tmp_path / "sequence", tmp_path / "ann.pem"):
        DAMAGE[damage](path)
        before = content_of(path)
        with pytest.raises((StoreError, KeyFileError), match=path.name.replace(".", r"\.")):
            Sequence(path) if path.name == "sequence" else load_identity(tmp_path, "ann")
        assert content_of(path) == before
