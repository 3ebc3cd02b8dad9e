"""A short run of chaos: every kind of fault once at least, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.run import chaos, tell
from chaos.stage import NoDisk


@pytest.mark.slow
def test_nothing_is_lost_when_everything_goes_wrong(tmp_path: Path) -> None:
    try:
        result = chaos(tmp_path / "run", seconds=40.0, seed=3, devices=3)
    except NoDisk as error:
        pytest.skip(str(error))
    tell(result)
    assert result.wrong == []
    assert result.accepted == 3 * result.models > 0
