"""What the benchmarks make of what they observed: parts that add up, medians without the first, tables for a person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench import folder as bench_folder
from bench.command import bench
from bench.figures import PARTS, medians, parts_of, round_lines, transport_lines
from bench.folder import Settings
from bench.listener import Seen
from bench.trainer import FOLDER, TENSOR, Nothing
from floe import weights
from floe.config import load
from floe.errors import IncompleteError
from floe.plan import Plan

SEEN = Seen(opened=[1.0, 9.0], announced=[1.5, 1.75], answered=[3.0, 2.0], model=[3.5], pushed=[4.0])


def test_the_parts_of_a_round_add_up_to_it() -> None:
    parts = parts_of(SEEN, [4.5, 5.0], 2)
    assert parts == {"work": 0.5, "collect": 1.5, "aggregate": 0.5, "push": 0.5, "take": 1.0}
    assert list(parts) == list(PARTS)


@pytest.mark.parametrize("hands", [[4.5], [4.5, 5.0, 5.5]])
def test_a_round_counts_only_when_every_client_was_given_its_model(hands: list[float]) -> None:
    with pytest.raises(IncompleteError, match="of 2 clients"):
        parts_of(SEEN, hands, 2)


@pytest.mark.parametrize("missing", ["opened", "announced", "answered", "model", "pushed"])
def test_a_round_of_which_something_was_not_seen_does_not_count(missing: str) -> None:
    seen = Seen(**{name: [] if name == missing else list(getattr(SEEN, name)) for name in vars(SEEN)})
    with pytest.raises(IncompleteError, match="not seen whole"):
        parts_of(seen, [4.5, 5.0], 2)


def test_medians_leave_the_first_round_out() -> None:
    assert medians([{"a": 100.0}, {"a": 1.0}, {"a": 5.0}, {"a": 2.0}]) == {"a": 2.0}


def test_the_tables_have_every_figure() -> None:
    parts = dict.fromkeys(PARTS, 0.25)
    result = {"clients": 2, "bytes": 4096, "suite": "fernet", "rounds": 6, "seconds": 1.25, "parts": parts,
              "bytes_up": 9000, "bytes_down": 5000, "aggregator_peak_mb": 61.5, "client_peak_mb": 47.0}  # fmt: skip
    text = "\n".join(round_lines(result))
    for shown in (
        "2 clients, 4.1 kB, fernet: 1.250 s",
        "median of 5",
        "9.0 kB",
        "5.0 kB",
        "61.5 MB",
        "47.0 MB",
        *PARTS,
    ):
        assert shown in text
    measured = {"bytes": 10**7, "chunk_bytes": 65536, "suite": "plaintext", "raw_mb_s": 400.0, "floe_mb_s": 300.0}
    text = "\n".join(transport_lines({**measured, "ratio": 0.75}))
    assert all(figure in text for figure in ("10.0 MB in chunks of 65536", "400.0 MB/s", "300.0 MB/s", "0.75"))


@pytest.mark.parametrize("params", [1, 1000, 700_000_000])
def test_a_model_of_any_size_passes_the_limits_of_its_own_floe_toml(tmp_path: Path, params: int) -> None:
    settings = Settings(2, params, 3, "fernet")
    text = "".join(f"[{s}]\n{bench_folder._keys(keys)}\n" for s, keys in settings.sections(1883).items())
    (tmp_path / "floe.toml").write_text(text)
    config = load(environ={}, file=tmp_path / "floe.toml")  # raises if a chunk did not fit into a packet
    assert config.security.max_transfer_mb * 1_000_000 >= bench_folder.model_bytes(settings)


def test_the_model_has_the_size_that_is_told_and_numbers_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(1, 1000, 2, "plaintext")
    bench_folder.make(tmp_path, settings, 1883)
    monkeypatch.chdir(tmp_path)
    initial = tmp_path / bench_folder.INITIAL
    assert initial.stat().st_size == bench_folder.model_bytes(settings)
    trainer, base = Nothing(None, Plan()), weights.read(initial)
    trained, _ = trainer.train(base, device="a", round=1, stop=lambda: False)
    trainer.evaluate(trained)
    assert trained[TENSOR].dtype == np.float32
    assert (trained[TENSOR] == base[TENSOR] + 1).all()
    (hands,) = (tmp_path / FOLDER).iterdir()
    assert [line.split()[0] for line in hands.read_text().splitlines()] == ["0", "1"]


@pytest.mark.parametrize(
    "words",
    [["round", "--clients", "0"], ["round", "--params", "many"], ["round", "--rounds", "1"],
     ["round", "--suite", "rot13"], ["transport", "--size", "0"]],
)  # fmt: skip
def test_a_bad_flag_is_named_with_what_is_allowed(words: list[str]) -> None:
    done = CliRunner().invoke(bench, words)
    assert done.exit_code == 2
    assert f"Invalid value for '{words[1]}'" in done.output
