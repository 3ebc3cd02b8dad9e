"""What the page is served for: set once by `floe ui`, read by every run of the script, in the same process."""

from __future__ import annotations

from floe.settings import Config

_configs: list[Config] = []


def serve_for(config: Config) -> None:
    """From now on the page is about this federation."""
    _configs[:] = [config]


def config() -> Config:
    """The configuration that `floe ui` was started with."""
    return _configs[0]
