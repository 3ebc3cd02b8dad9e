"""`floe plan check` and `floe.soundness`: what does not go together is told before anybody trains."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_client import privacy
from edge_client.data import folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from edge_client.ledger import Spent
from floe.cli import floe
from floe.errors import ConfigError
from floe.idle import notes
from floe.plan import Plan
from floe.privacy import rounded_up
from floe.schema import Schema
from floe.settings import Rounds
from floe.soundness import check_sound, described, faults, least_updates

DP = {"privacy": "device", "noise_multiplier": 1.0, "scaling": "none"}


@pytest.mark.parametrize(
    ("plan", "rounds", "named"),
    [
        ({"rule": "krum", "byzantine": 1}, {"devices": 4}, "needs 5 updates"),
        ({"rule": "multi-krum", "keep": 6}, {"devices": 5}, "needs 6 updates"),
        (
            {"rule": "multi-krum", "byzantine": 2, "keep": 6},
            {"devices": 7},
            "needs 8 updates, and [rounds] devices = 7",
        ),
        ({"rule": "multi-krum", "byzantine": 2, "keep": 6}, {"devices": 7}, "or lower byzantine or keep"),
        ({"rule": "trimmed-mean", "byzantine": 2}, {"devices": 9, "quorum": 4}, "[rounds] quorum = 4"),
        ({"rule": "krum", "byzantine": 1}, {"devices": 10, "fraction": 0.4}, "fraction = 0.4"),
        ({"rule": "median"}, {"mode": "asynchronous"}, 'mode = "rounds"'),
        ({"rule": "median", "byzantine": 1}, {}, "byzantine = 1"),
        ({"rule": "krum", "keep": 2}, {"devices": 9}, "keep = 2"),
        ({"rule": "fedadam", "report": "accuracy"}, {}, 'report = "weights"'),
        ({"schema": "own", "scaling": "none"}, {}, "name them in personal"),
        ({"schema": "own", "personal": ("a.*",)}, {}, 'scaling = "local"'),
        ({"personal": ("a.*",), "report": "accuracy"}, {}, "drop one"),
        ({"personal": ("*",)}, {}, "leaves nothing to share"),
        ({"threshold": "federated", "report": "accuracy"}, {}, "agreed for a global model"),
        ({**DP, "threshold": "federated"}, {}, 'set threshold = "local"'),
        ({"epsilon": 3.0}, {}, 'it is "none"'),
        ({"privacy": "example", "scaling": "none"}, {}, "without noise"),
        ({"privacy": "example", "noise_multiplier": 1.0}, {}, "without noise; set scaling"),
        ({**DP, "rule": "median"}, {}, 'set rule = "fedavg"'),
        (DP, {"late": "merge"}, 'late = "drop"'),
        ({**DP, "privacy": "example", "clip_quantile": 0.5}, {}, "max_grad_norm"),
    ],
)
def test_what_does_not_go_together_is_named_with_the_way_out(
    plan: dict[str, object], rounds: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_sound(Plan(**plan), Rounds(**rounds))  # type: ignore[arg-type]
    assert named in str(caught.value)


def test_a_fault_is_told_once_and_one_device_of_a_fraction_is_enough_for_a_mean() -> None:
    private = Plan(privacy="example", noise_multiplier=1.0, scaling="none", threshold="federated", model="autoencoder")
    assert len(list(faults(private, Rounds()))) == 1
    assert list(faults(Plan(), Rounds(fraction=1e-6))) == []


def test_the_defaults_and_each_rule_with_devices_enough_are_sound() -> None:
    assert list(faults(Plan(), Rounds())) == []
    for rule in ("fedavgm", "fedadam", "fedyogi", "fedadagrad", "median", "norm-clipping"):
        assert list(faults(Plan(rule=rule), Rounds())) == []
    assert list(faults(Plan(rule="krum", byzantine=2), Rounds(devices=7))) == []


def test_krum_needs_two_f_and_three_updates_and_a_trimmed_mean_two_f_and_one() -> None:
    assert [least_updates(Plan(rule="krum", byzantine=f)) for f in (0, 1, 4)] == [3, 5, 11]
    assert [least_updates(Plan(rule="trimmed-mean", byzantine=f)) for f in (0, 1, 4)] == [1, 3, 9]
    assert least_updates(Plan()) == 1


def run(text: str, *arguments: str) -> tuple[int, str]:
    """`floe plan check` beside a floe.toml: whether it failed, and what it said."""
    Path("floe.toml").write_text(text)
    result = CliRunner().invoke(floe, ["plan", "check", *arguments])
    return result.exit_code, result.output + str(result.exception or "")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    x, y = np.ones((20, 3), np.float32), np.arange(20, dtype=np.int64) % 2
    features = Features(x, y, x, y, Schema((3,), 2))
    folder.write(Path("mine"), features, Document(schema=features.schema))
    return "mine"


def test_a_sound_plan_is_told_in_words(data: str) -> None:
    code, output = run('[plan]\nmodel = "mlp"\nrule = "krum"\n[rounds]\ndevices = 5\n', "--data", data)
    assert code == 0
    assert "rule    krum" in output
    assert "at least 3 update(s)" in output


@pytest.mark.parametrize(("rate", "told"), [(1.0, True), (0.01, False)])
def test_a_step_that_an_adaptive_rule_rarely_learns_with_is_told(rate: float, told: bool) -> None:
    lines = [*described(Plan(rule="fedadam", server_learning_rate=rate), Rounds())]
    assert any(line.startswith("beware  fedadam with server_learning_rate = 1 rarely") for line in lines) == told
    assert not any("beware" in line for line in described(Plan(rule="fedavgm"), Rounds()))


def test_every_fault_is_told_not_only_the_first(data: str) -> None:
    code, output = run('[plan]\nmodel = "cnn"\nrule = "krum"\n', "--data", data, "--data", "elsewhere")
    assert code != 0
    assert "needs 3 updates" in output
    assert "model 'cnn' needs images" in output
    assert "elsewhere: no such file" in output
    assert "3 fault(s)" in output


DEVICE = '[plan]\nprivacy = "device"\nscaling = "none"\n'
EXAMPLE = '[plan]\nmodel = "mlp"\nprivacy = "example"\nscaling = "none"\nbatch_size = 5\ndelta = 1e-3\n'


def test_what_all_rounds_cost_each_device_is_told(data: str) -> None:
    code, output = run(f"{DEVICE}noise_multiplier = 1.0\n[rounds]\ncount = 50\n")
    assert code == 0
    assert "private each device: noise 1, epsilon 54.38 after 50 rounds, no budget, delta 1e-05" in output
    _, output = run(f"{DEVICE}epsilon = 8.0\nprivacy_rounds = 50\n[rounds]\ncount = 50\n")
    assert "noise 4.244, epsilon 8.00 after 50 rounds, budget 8" in output


def test_what_the_aggregator_refuses_of_privacy_is_a_fault(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(f"{DEVICE}noise_multiplier = 0.1\nepsilon = 1.0\n")
    assert code != 0
    assert "one round with noise_multiplier = 0.1 costs epsilon" in output
    monkeypatch.setattr("floe.privacy.find_spec", lambda name: None)
    code, output = run(f"{DEVICE}noise_multiplier = 1.0\n")
    assert code != 0
    assert "pip install 'floe[dp]'" in output


def test_a_package_that_is_there_and_broken_is_told_as_such(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floe.privacy.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    code, output = run(f"{DEVICE}noise_multiplier = 1.0\n")
    assert code != 0
    assert (
        "does not start (import of dp_accounting halted; None in sys.modules): pip install --force-reinstall " in output
    )


def test_what_all_rounds_cost_the_rows_of_some_data_is_told(data: str) -> None:
    text = f"{EXAMPLE}noise_multiplier = 1.0\n"
    code, output = run(f"{text}[rounds]\ncount = 3\n", "--data", data)
    assert code == 0
    one, three = (privacy.epsilon_of([Spent(1.0, 0.25, 20 * rounds)], 1e-3) for rounds in (1, 3))
    assert f"epsilon {rounded_up(one)} after a round, {rounded_up(three)} after 3 rounds, delta 0.001" in output


@pytest.mark.parametrize("where", ["epsilon = 1.0", "[device]\nepsilon = 1.0"])
def test_a_round_that_costs_the_rows_of_some_data_too_much_is_a_fault(data: str, where: str) -> None:
    code, output = run(f"{EXAMPLE}noise_multiplier = 1.0\n{where}\n", "--data", data)
    assert code != 0
    assert "mine: one round costs epsilon" in output
    assert "of 1: raise noise_multiplier or epsilon" in output


@pytest.mark.parametrize(
    ("plan", "noted"),
    [
        ({"clip_norm": 0.5}, "clip_norm = 0.5 counts for nothing here; it is for rule = norm-clipping"),
        ({"rule": "median", "server_learning_rate": 0.3}, "server_learning_rate = 0.3 counts for nothing"),
        ({"optimizer": "adam", "momentum": 0.9}, "it is for optimizer = sgd"),
        ({"report": "accuracy", "upload": "int8"}, "upload = int8 counts for nothing"),
        ({"model": "cnn", "hidden": (3,)}, "hidden = (3,)"),
    ],
)
def test_what_counts_for_nothing_is_noted(plan: dict[str, object], noted: str) -> None:
    assert [note for note in notes(Plan(**plan)) if noted in note]  # type: ignore[arg-type]


def test_what_counts_is_not_noted() -> None:
    used = Plan(
        rule="fedyogi", server_learning_rate=0.01, server_beta2=0.9, optimizer="sgd", momentum=0.9, upload="int8"
    )
    assert list(notes(Plan())) == list(notes(used)) == []
    assert list(notes(Plan(privacy="device", noise_multiplier=1.0, clip_norm=2.0, delta=1e-3, clip_quantile=0.5))) == []


def test_an_unknown_rule_is_refused_with_those_that_are_known(data: str) -> None:
    code, output = run('[plan]\nrule = "crumb"\n')
    assert code != 0
    assert "krum | multi-krum" in output
