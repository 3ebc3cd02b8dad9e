"""What `floe aggregator` refuses before it connects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aggregator.command import aggregator
from floe.errors import ConfigError
from floe.plan import Plan
from floe.settings import Rounds
from floe.soundness import check_sound


@pytest.mark.parametrize(
    ("rounds", "plan", "says"),
    [
        ({"members": ("a", "b"), "devices": 3}, {}, "devices = 3, but only the 2 of members"),
        ({"members": ("a", "a"), "devices": 2}, {}, "devices = 2, but only the 1 of members"),
        ({"members": ("a", "b"), "quorum": 3}, {}, "quorum = 3, but only the 2 of members"),
        ({"mode": "asynchronous"}, {"report": "accuracy"}, 'set mode = "rounds", or report = "weights"'),
        ({"mode": "asynchronous", "fraction": 0.5}, {}, "set fraction = 1"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_way_out(
    rounds: dict[str, Any], plan: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_sound(Plan(**plan), Rounds(**rounds))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "rounds",
    [{}, {"devices": 50, "quorum": 40}, {"members": ("a", "b"), "quorum": 2}, {"mode": "asynchronous", "quorum": 2}],
)
def test_what_goes_together_is_taken(rounds: dict[str, Any]) -> None:
    check_sound(Plan(), Rounds(**rounds))


def test_the_aggregator_checks_before_it_writes_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "floe.toml").write_text('[rounds]\nmembers = ["a"]\n')
    result = CliRunner().invoke(aggregator, [])
    assert isinstance(result.exception, ConfigError)
    assert [path.name for path in tmp_path.iterdir()] == ["floe.toml"]
