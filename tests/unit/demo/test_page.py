"""The page beside a demo: without Streamlit nothing is started."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
import pytest

from demo import page
from demo.command import demo
from floe.errors import ConfigError


def test_without_streamlit_the_demo_with_its_page_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"-m pip install 'floe\[ui\]'"):
        demo.main(["--ui", "--out", "run"], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []


def test_with_streamlit_there_is_nothing_to_say() -> None:
    page.check()
    assert isinstance(demo, click.Command)
