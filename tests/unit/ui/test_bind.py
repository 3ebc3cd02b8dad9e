"""Where the page is served: an address that is none is refused in words."""

from __future__ import annotations

import pytest

from floe.errors import ConfigError
from floe.settings import Config, Ui
from ui.command import _listening


@pytest.mark.parametrize("name", ["a" * 70, "a..b", "nosuch.invalid"])
def test_a_name_that_is_no_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the page cannot be served at"):
        _listening(Config(ui=Ui(bind=name)))
