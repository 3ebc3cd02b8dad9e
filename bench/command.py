"""`floe bench`: what a round and a transfer cost without training, through a real Mosquitto with everything on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click

from bench import fleet as fleets
from bench import scale as scales
from bench import trust as trusts
from bench.federation import Run, run
from bench.figures import medians, parts_of, round_lines, transport_lines
from bench.fleet_figures import fleet_lines, fleet_result
from bench.folder import Settings, model_bytes
from bench.primitives import primitives
from bench.trust_figures import trust_lines, trust_result
from floe.errors import ConfigError
from floe.files import write_atomically
from floe.messages import Suite
from floe.service import stopping
from floe.transfer import chunk_bytes_for

TRANSFERS = 6  # of which the first is dropped
SEALED = ("chacha20-poly1305", "aes-256-gcm")  # the suites of enrolled devices
F = TypeVar("F", bound=Callable[..., Any])
_json = click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")


def _shared(function: F) -> F:
    suites = click.Choice(get_args(Suite))
    return click.option("--suite", type=suites, default=SEALED[0], show_default=True)(_json(function))


@click.group()
def bench() -> None:
    """What a round and a transfer cost: a federation on this machine that trains nothing."""


@bench.command("round")
@click.option("--clients", type=click.IntRange(1, 1000), default=2, show_default=True, help="each a process of its own")
@click.option(
    "--params", type=click.IntRange(1, 500_000_000), default=250_000, show_default=True, help="float32 numbers"
)
@click.option("--rounds", type=click.IntRange(2, 1_000_000), default=6, show_default=True, help="the first is dropped")
@_shared
def round_(clients: int, params: int, rounds: int, suite: str, as_json: bool) -> None:
    """Seconds from the publication of a round to the new global model in every client's hands, and its parts."""
    settings = Settings(clients, params, rounds, cast(Suite, suite))
    with stopping() as stop:
        observed = run(settings, stop)
    result = _round_result(settings, observed)
    _tell(result, round_lines(result), as_json)


@bench.command()
@click.option("--devices", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="simulated")
@click.option(
    "--params", type=click.IntRange(1, 500_000_000), default=25_000, show_default=True, help="float32 numbers"
)
@click.option("--rounds", type=click.IntRange(2, 1_000_000), default=3, show_default=True, help="medians: without 1")
@_shared
def fleet(devices: int, params: int, rounds: int, suite: str, as_json: bool) -> None:
    """A round with many simulated devices, each with its own connection, key and messages: seconds and memory."""
    settings = Settings(devices, params, rounds, cast(Suite, suite))
    with stopping() as stop:
        observed = fleets.run(settings, stop)
    result = fleet_result(settings, observed)
    _tell(result, fleet_lines(result), as_json)


@bench.command()
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="draw it: an SVG file")
@_shared
def scale(figure: Path | None, suite: str, as_json: bool) -> None:
    """How a round's seconds and the aggregator's memory grow with clients, model size and rounds; some minutes."""
    if figure and not figure.parent.is_dir():
        raise ConfigError(f"--figure {figure}: no folder {figure.parent}; make it first")
    with stopping() as stop:
        result = scales.measure(cast(Suite, suite), lambda point: fleet_result(point, fleets.run(point, stop)))
    if figure:
        write_atomically(figure, scales.figure(result).encode())
    _tell(result, scales.scale_lines(result), as_json)


@bench.command()
@click.option("--size", type=click.IntRange(1, 4000), default=100, show_default=True, help="MB of float32 numbers")
@_shared
def transport(size: int, suite: str, as_json: bool) -> None:
    """One transfer, from its announcement to its answer, beside the raw rate of paho through the same Mosquitto."""
    settings = Settings(1, size * 250_000, TRANSFERS, cast(Suite, suite))
    with stopping() as stop:
        observed = run(settings, stop, raw=True)
    parts = medians(_parts(settings, observed))
    whole = model_bytes(settings)
    assert observed.raw_seconds is not None
    result = {
        "bytes": whole,
        "chunk_bytes": chunk_bytes_for(whole),
        "suite": suite,
        "raw_seconds": observed.raw_seconds,
        "raw_mb_s": whole / observed.raw_seconds / 1e6,
        "floe_seconds": parts["collect"],
        "floe_mb_s": whole / parts["collect"] / 1e6,
        "ratio": observed.raw_seconds / parts["collect"],
    }
    _tell(result, transport_lines(result), as_json)


@bench.command()
@click.option("--clients", type=click.IntRange(1, 1000), default=4, show_default=True, help="each a process of its own")
@click.option(
    "--params", type=click.IntRange(1, 500_000_000), default=250_000, show_default=True, help="float32 numbers"
)
@click.option("--rounds", type=click.IntRange(1, 100_000), default=20, show_default=True, help="of each federation")
@_json
@click.option("--suite", type=click.Choice(SEALED), default=SEALED[0], show_default=True)
def trust(clients: int, params: int, rounds: int, suite: str, as_json: bool) -> None:
    """Processor time of a round with enrolled devices, Ed25519 or RSA, beside a round with a shared key."""
    settings = Settings(clients, params, rounds, cast(Suite, suite))
    with stopping() as stop:
        observed = trusts.run(settings, stop)
    result = trust_result(settings, observed, primitives())
    _tell(result, trust_lines(result), as_json)


def _parts(settings: Settings, observed: Run) -> list[dict[str, float]]:
    numbers = range(1, settings.rounds + 1)
    return [parts_of(observed.rounds[r], observed.hands.get(r, []), settings.clients) for r in numbers]


def _round_result(settings: Settings, observed: Run) -> dict[str, Any]:
    rows = [
        {**parts, "seconds": sum(parts.values()), "up": observed.up[r], "down": observed.down[r]}
        for r, parts in enumerate(_parts(settings, observed), 1)
    ]
    middle = medians(rows)
    return {
        "clients": settings.clients,
        "params": settings.params,
        "bytes": model_bytes(settings),
        "rounds": settings.rounds,
        "suite": settings.suite,
        "seconds": middle.pop("seconds"),
        "bytes_up": middle.pop("up"),
        "bytes_down": middle.pop("down"),
        "parts": middle,
        "aggregator_peak_mb": observed.aggregator_peak / 1e6,
        "client_peak_mb": observed.client_peak / 1e6,
        "each_round_seconds": [row["seconds"] for row in rows],
    }


def _tell(result: dict[str, Any], lines: list[str], as_json: bool) -> None:
    click.echo(json.dumps(result) if as_json else "\n".join(lines))
