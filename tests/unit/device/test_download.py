"""The global model on its way in: asked for until whole, checked, and never replaced by what is not."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers.wire import ANN, keyring

from edge_client.download import LONGEST_S, REPAIR_S, Download
from floe import messages as m
from floe import weights
from floe.encode import encode_model, encode_update
from floe.errors import Refused, StoreError
from floe.keyring import Keyring
from floe.parcel import Buffers, Parcel, pack
from floe.seal import sealer
from floe.transfer import name_of

RING = keyring("chacha20-poly1305")


def _model(folder: Path, value: float, *, sha256: str = "", kind: str = "model", lineage: str = "main") -> Parcel:
    folder.mkdir(exist_ok=True)
    source = folder / "model"
    weights.write(source, {"w": np.full(40_000, value, "<f4")})  # three chunks
    phase = m.Phase(lineage, 1, 3, "train")
    return pack(
        folder, source, "{}", RING, federation="floe", phase=phase, kind=kind, sender="main",
        base=sha256 or hashlib.sha256(source.read_bytes()).hexdigest(),
    )  # fmt: skip


def _manifest(parcel: Parcel, ring: Keyring = RING) -> m.Manifest:
    envelope = parcel.envelope(ring, "*")
    return m.Manifest(
        federation="floe", sender="main", key=ANN.key, proof="", seq=1, core=parcel.core, envelope=envelope
    )


def _base(parcel: Parcel) -> m.Base:
    return m.Base(sha256=parcel.core.base, transfer=parcel.name)


def _download(tmp_path: Path, ring: Keyring = RING, max_bytes: int = 1_000_000) -> Download:
    (tmp_path / "state").mkdir(exist_ok=True)
    return Download(tmp_path / "state", ring, "main", max_bytes)


def _add_all(download: Download, parcel: Parcel, order: tuple[int, ...] = (0, 1, 2)) -> bool:
    return [download.add(parcel.name, i, parcel.chunk(i), 0.0) for i in order][-1]


def test_a_model_that_is_pushed_is_taken_in_any_order_and_kept_over_a_restart(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.5), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=0.0)
    assert _add_all(download, parcel, (2, 0, 0, 1))
    assert download.sha256 == parcel.core.base == _download(tmp_path).sha256
    assert weights.read(download.path)["w"][7] == 1.5
    assert download.wanted(_base(parcel), 100.0) is None


def test_without_a_manifest_it_is_asked_for_with_growing_pauses(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    asked, now = [], 0.0
    while now < 200:
        asked += [now] if download.wanted(_base(parcel), now) == () else []
        now += 0.5
    pauses = [b - a for a, b in pairwise(asked)]
    assert pauses[:6] == [REPAIR_S * 2**i for i in range(5)] + [LONGEST_S]


def test_chunks_of_a_retained_manifest_have_gone_by_and_are_asked_for_at_once(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    download.announce(_manifest(parcel), retained=True, now=50.0)
    assert download.wanted(_base(parcel), 50.0) == ((0, 3),)


def test_chunks_of_a_fresh_manifest_are_waited_for_and_only_the_missing_asked_for(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=50.0)
    assert download.wanted(_base(parcel), 50.5) is None
    download.add(parcel.name, 1, parcel.chunk(1), 50.5)
    assert download.wanted(_base(parcel), 50.5 + REPAIR_S) == ((0, 1), (2, 3))


def test_a_restart_in_the_middle_asks_only_for_the_rest(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=0.0)
    download.add(parcel.name, 2, parcel.chunk(2), 0.0)
    again = _download(tmp_path)
    again.announce(_manifest(parcel), retained=True, now=0.0)
    assert again.wanted(_base(parcel), 0.0) == ((0, 2),)


def test_a_newer_model_takes_the_place_of_one_that_is_not_whole(tmp_path: Path) -> None:
    old, new, download = _model(tmp_path / "a", 1.0), _model(tmp_path / "b", 2.0), _download(tmp_path)
    download.announce(_manifest(old), retained=False, now=0.0)
    download.add(old.name, 0, old.chunk(0), 0.0)
    download.announce(_manifest(new), retained=False, now=0.0)
    assert not download.add(old.name, 1, old.chunk(1), 0.0)
    assert _add_all(download, new)
    assert weights.read(download.path)["w"][0] == 2.0


def test_an_altered_chunk_is_refused_and_the_right_one_still_taken(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=0.0)
    with pytest.raises(Refused, match="chunk"):
        download.add(parcel.name, 0, parcel.chunk(0)[:-1] + b"x", 0.0)
    assert _add_all(download, parcel)


def test_a_model_whose_chunks_do_not_open_cannot_be_had(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    other = sealer(parcel.core, bytes(32)).seal(0, bytes(parcel.core.chunk_size))
    core = msgspec.structs.replace(parcel.core, chunks=(hashlib.sha256(other).hexdigest(), *parcel.core.chunks[1:]))
    manifest = msgspec.structs.replace(_manifest(parcel), core=core)
    download.announce(manifest, retained=False, now=0.0)
    with pytest.raises(Refused, match="unsealing: chunk 0"):
        download.add(name_of(core), 0, other, 0.0)
    assert "unsealing: chunk 0" in download.fault(_base(parcel))
    assert not download.add(name_of(core), 1, parcel.chunk(1), 0.0)


def test_a_model_that_is_not_what_its_manifest_says_leaves_the_old_one(tmp_path: Path) -> None:
    good, bad, download = _model(tmp_path / "a", 1.0), _model(tmp_path / "b", 2.0, sha256="0" * 64), _download(tmp_path)
    download.announce(_manifest(good), retained=False, now=0.0)
    _add_all(download, good)
    download.announce(_manifest(bad), retained=False, now=0.0)
    with pytest.raises(Refused, match="weights: the model has hash"):
        _add_all(download, bad)
    assert download.sha256 == _download(tmp_path).sha256 == good.core.base
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["base.safetensors"]


def test_a_model_with_nan_leaves_the_old_one(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", float("nan")), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=0.0)
    with pytest.raises(Refused, match="weights: tensor 'w' has nan"):
        _add_all(download, parcel)
    assert (download.sha256, list((tmp_path / "state").iterdir())) == ("", [])


def test_a_model_that_was_opened_stays_whole_when_the_next_takes_its_place(tmp_path: Path) -> None:
    old, new, download = _model(tmp_path / "a", 1.0), _model(tmp_path / "b", 2.0), _download(tmp_path)
    download.announce(_manifest(old), retained=False, now=0.0)
    _add_all(download, old)
    with download.open() as file:
        download.announce(_manifest(new), retained=False, now=0.0)
        _add_all(download, new)
        assert weights.read(file)["w"][0] == 1.0
        assert weights.read(file)["w"][39_999] == 1.0


def test_a_model_that_somebody_removed_is_fetched_again(tmp_path: Path) -> None:
    parcel, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=0.0)
    _add_all(download, parcel)
    download.path.unlink()
    with pytest.raises(StoreError, match="fetched again"):
        download.open()
    assert download.wanted(_base(parcel), 100.0) == ()


@pytest.mark.parametrize(
    ("change", "reason"), [({"kind": "update"}, "not-for-us"), ({"lineage": "other"}, "not-for-us"), ({}, "suite")]
)
def test_what_is_not_this_lineages_model_or_not_sealed_as_configured_is_refused(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    parcel = _model(tmp_path / "a", 1.0, **change)
    download = _download(tmp_path, keyring("plaintext") if reason == "suite" else RING)
    with pytest.raises(Refused) as refusal:
        download.announce(_manifest(parcel), retained=False, now=0.0)
    assert refusal.value.reason == reason


def test_a_model_over_the_cap_is_refused_before_anything_is_reserved(tmp_path: Path) -> None:
    parcel = _model(tmp_path / "a", 1.0)
    download = _download(tmp_path, max_bytes=1000)
    with pytest.raises(Refused, match="oversized"):
        download.announce(_manifest(parcel), retained=False, now=0.0)
    assert list((tmp_path / "state").iterdir()) == []


def _encoded(folder: Path, array: weights.AnyArray, *, file: Buffers | None = None, sha256: str = "") -> Parcel:
    """A model of this tensor as its encoded file, or as another file."""
    folder.mkdir(exist_ok=True)
    weights.write(folder / "model", {"w": array, "few": np.full(3, 0.1, "<f4")}, {"schema": "{}"})
    encode_model(folder / "model", folder / "encoded")
    return pack(
        folder, folder / "encoded" if file is None else file, "{}", RING, federation="floe",
        phase=m.Phase("main", 1, 3, "train"), kind="model", sender="main",
        base=sha256 or hashlib.sha256((folder / "model").read_bytes()).hexdigest(),
    )  # fmt: skip


HALVES = np.random.default_rng(0).normal(size=80_000).astype("<f2").astype("<f4")  # three chunks, encoded


def test_an_encoded_model_is_kept_as_the_file_that_was_encoded(tmp_path: Path) -> None:
    parcel, download = _encoded(tmp_path / "a", HALVES), _download(tmp_path)
    assert parcel.core.size < HALVES.nbytes / 2 + 1000
    download.announce(_manifest(parcel), retained=False, now=0.0)
    assert _add_all(download, parcel, (2, 0, 0, 1))
    assert download.path.read_bytes() == (tmp_path / "a" / "model").read_bytes()
    assert download.sha256 == parcel.core.base == _download(tmp_path).sha256
    assert download.wanted(_base(parcel), 100.0) is None
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["base.safetensors"]


def test_a_restart_in_the_middle_of_an_encoded_model_asks_only_for_the_rest(tmp_path: Path) -> None:
    parcel, download = _encoded(tmp_path / "a", HALVES), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=0.0)
    download.add(parcel.name, 2, parcel.chunk(2), 0.0)
    again = _download(tmp_path)
    again.announce(_manifest(parcel), retained=True, now=0.0)
    assert again.wanted(_base(parcel), 0.0) == ((0, 2),)
    assert _add_all(again, parcel, (0, 1))
    assert again.path.read_bytes() == (tmp_path / "a" / "model").read_bytes()


def test_a_model_whose_numbers_are_not_all_float16_comes_without_a_loss(tmp_path: Path) -> None:
    parcel, download = _encoded(tmp_path / "a", HALVES[:30_000] + np.float32(1e-6)), _download(tmp_path)
    download.announce(_manifest(parcel), retained=False, now=0.0)
    assert _add_all(download, parcel, tuple(range(len(parcel.core.chunks))))
    assert download.path.read_bytes() == (tmp_path / "a" / "model").read_bytes()


def _update() -> Buffers:
    base = {"w": np.zeros(80_000, "<f4")}
    return encode_update({"w": HALVES}, base, {}, "float16", {}, seed=0, device="a", round=1).buffers


@pytest.mark.parametrize(
    ("file", "sha256", "why"),
    [
        (None, "0" * 64, "weights: the model has hash"),
        (_update(), "", "weights: a difference, where a model was asked for"),
    ],
)
def test_an_encoded_model_that_is_not_what_its_manifest_says_leaves_the_old_one(
    tmp_path: Path, file: Buffers | None, sha256: str, why: str
) -> None:
    good, download = _model(tmp_path / "a", 1.0), _download(tmp_path)
    bad = _encoded(tmp_path / "b", HALVES, file=file, sha256=sha256)
    download.announce(_manifest(good), retained=False, now=0.0)
    _add_all(download, good)
    download.announce(_manifest(bad), retained=False, now=0.0)
    with pytest.raises(Refused, match=why):
        _add_all(download, bad, tuple(range(len(bad.core.chunks))))
    assert why in download.fault(_base(bad))
    assert download.sha256 == _download(tmp_path).sha256 == good.core.base
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["base.safetensors"]


def test_an_encoded_model_that_would_be_over_the_cap_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A million zeros travel as a few hundred bytes."""
    parcel, download = _encoded(tmp_path / "a", np.zeros(1_000_000, "<f4")), _download(tmp_path)
    assert parcel.core.size < 2000
    download.announce(_manifest(parcel), retained=False, now=0.0)
    with pytest.raises(Refused, match="oversized: decoded it has 4000012 bytes, at most 1000000"):
        download.add(parcel.name, 0, parcel.chunk(0), 0.0)
    assert (download.sha256, list((tmp_path / "state").iterdir())) == ("", [])
