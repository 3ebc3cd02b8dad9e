"""Models by alias."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edge_client.models import build
from floe.errors import ConfigError, DataError
from floe.plan import Plan
from floe.schema import Schema


@pytest.fixture(autouse=True)
def _own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)


def _parameters(alias: str, shape: tuple[int, ...], classes: int, hidden: tuple[int, ...] = ()) -> int:
    module = build(Plan(model=alias, hidden=hidden), Schema(shape, classes), {}).module
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_cnn_has_the_parameters_of_mcmahan_et_al() -> None:
    assert _parameters("cnn", (1, 28, 28), 10) == 1_663_370


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 5, 9)])
def test_the_cnn_fits_other_images(shape: tuple[int, ...]) -> None:
    dense = 64 * (shape[1] // 4) * (shape[2] // 4)
    assert _parameters("cnn", shape, 7) == (shape[0] * 25 + 1) * 32 + 51_264 + (dense + 1) * 512 + 513 * 7


def test_the_mlp_is_the_2nn_of_mcmahan_et_al() -> None:
    assert _parameters("mlp", (1, 28, 28), 10) == 199_210


def test_hidden_sets_the_widths_of_the_mlp() -> None:
    assert _parameters("mlp", (3,), 2, hidden=(4,)) == (3 * 4 + 4) + (4 * 2 + 2)


def test_linear_is_one_layer() -> None:
    assert _parameters("linear", (1, 2, 2), 3) == 4 * 3 + 3


def test_hidden_is_the_encoder_of_the_autoencoder_and_the_decoder_mirrors_it() -> None:
    module = build(Plan(model="autoencoder", hidden=(4, 2)), Schema((6,), 2), {}).module
    weights = [tuple(p.shape) for p in module.parameters() if p.dim() == 2]
    assert weights == [(4, 6), (2, 4), (4, 2), (6, 4)]


@pytest.mark.parametrize("shape", [(1,), (115,), (1, 4, 4)])
def test_the_autoencoder_gives_back_the_shape_it_was_given(shape: tuple[int, ...]) -> None:
    model = build(Plan(model="autoencoder"), Schema(shape, 1), {})
    assert model.objective == "reconstruction"
    assert model.outputs(torch.zeros(5, *shape)).shape == (5, *shape)


def test_an_unknown_alias_is_told_what_is_known_and_how_to_add_it() -> None:
    with pytest.raises(ConfigError, match=r"(?s)'vgg'.*autoencoder, cnn, linear, mlp, mine.*\[models\] vgg = "):
        build(Plan(model="vgg"), Schema((3,), 2), {"mine": "own:good"})


def test_an_own_model_is_built_from_its_target() -> None:
    model = build(Plan(model="mine"), Schema((3,), 2), {"mine": "own:good"})
    assert (model.objective, model.name) == ("classification", "'mine' (own:good)")


def test_an_own_model_may_reconstruct() -> None:
    model = build(Plan(model="mine"), Schema((3,), 2), {"mine": "own:reconstructs"})
    assert model.objective == "reconstruction"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere:good", "No module named 'nowhere'"),
        ("own:missing", "no attribute 'missing'"),
        ("own:NOT_A_FUNCTION", "is a int; a function is needed"),
        ("own:raises", "ValueError: no such layer"),
        ("own:not_a_module", "returned a dict"),
        ("own:wrong_objective", "'regression'; allowed is classification | reconstruction"),
        ("own:wrong_outputs", r"gives \(2, 3\) .* needed: \(2, 2\)"),
        ("own:half_precision", "weight is torch.bfloat16"),
    ],
)
def test_a_bad_own_model_is_named_with_its_target(target: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"'mine' .{target}.*{reason.replace('|', '.')}"):
        build(Plan(model="mine"), Schema((3,), 2), {"mine": target})


def test_an_own_model_that_does_not_take_the_examples_is_named_with_its_target() -> None:
    with pytest.raises(DataError, match=r"'mine' .own:wrong_inputs. failed on a batch of shape \(2, 3\): RuntimeError"):
        build(Plan(model="mine"), Schema((3,), 2), {"mine": "own:wrong_inputs"})


def test_the_cnn_refuses_a_table() -> None:
    with pytest.raises(ConfigError, match=r"'cnn' needs images .*\(30,\)"):
        build(Plan(model="cnn"), Schema((30,), 2), {})


def test_a_classifier_refuses_a_single_class() -> None:
    with pytest.raises(ConfigError, match="'linear' classifies and needs two classes"):
        build(Plan(model="linear"), Schema((3,), 1), {})


def test_layers_that_no_device_could_hold_are_refused_before_they_are_made() -> None:
    with pytest.raises(ConfigError, match=r"plan.hidden: layers of \[3, 65536, 65536, 2\]"):
        build(Plan(model="mlp", hidden=(65536, 65536)), Schema((3,), 2), {})
