"""Personal layers by name pattern."""

from __future__ import annotations

import pytest

from floe.errors import ConfigError
from floe.personal import is_personal, personal_of

NAMES = ("conv.weight", "bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked", "dense.weight", "dense.bias")


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ((), set()),
        (("dense.*",), {"dense.weight", "dense.bias"}),
        (("*bn*",), {"bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked"}),
        (("conv.weight", "*.bias"), {"conv.weight", "dense.bias"}),
        (("bn?.[rn]*",), {"bn1.running_mean", "bn1.num_batches_tracked"}),
    ],
)
def test_patterns_choose_tensors_by_name(patterns: tuple[str, ...], kept: set[str]) -> None:
    assert personal_of(NAMES, patterns) == kept


def test_the_scaling_is_never_personal() -> None:
    assert not is_personal("scaling.mean", ["*mean"])
    assert is_personal("bn1.running_mean", ["*mean"])


def test_large_and_small_letters_differ() -> None:
    assert not is_personal("Dense.weight", ["dense.*"])


def test_a_pattern_without_a_tensor_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r'like "dence\.\*"; there are bn1\.num_batches_tracked, .*dense\.weight'):
        personal_of(NAMES, ("*bn*", "dence.*"))


@pytest.mark.parametrize("patterns", [("*",), ("*bn*", "conv*", "dense*")])
def test_patterns_that_leave_nothing_to_share_are_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"leaves none to share; there are bn1"):
        personal_of(NAMES, patterns)
