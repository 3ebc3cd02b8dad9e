"""`floe status`: how the federation is, live in a terminal, or once."""

from __future__ import annotations

import json
import sys
import time

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from floe.cli import config_options
from floe.errors import StoreError
from floe.privacy import rounded_up
from floe.service import stopping
from floe.settings import Config
from floe.store import now
from floe.terminal import printable
from ui.queries.fleet import Device
from ui.reading import Reading, read
from ui.status import Status, as_json, asking, broker_words, health, round_words
from ui.times import how_long_ago, local

EVERY_S, POLL_S = 1.0, 0.1
ROWS = 20
WIDTH = 400
OTHER_LINES = 22  # of a screen, beside the devices


@click.command()
@config_options(lineage="rounds.lineage")
@click.option("--json", "as_text", is_flag=True, help="one JSON object, with all devices, once")
def status(config: Config, as_text: bool) -> None:
    """Show how the federation is: the aggregator, the round, the devices, what went wrong lately.

    Reads the aggregator's log, so it is for the machine that has that. In a terminal it goes on until Ctrl-C; else, and
    with --json, it is shown once, and a log that cannot be read ends with 6.
    """
    if sys.stdout.isatty() and not as_text:
        sys.exit(_live(config))
    found = _read(config)
    if as_text:
        click.echo(json.dumps(as_json(found)))
    else:
        _print(found)
    if found.trouble:
        raise StoreError(f"{found.path}: {found.trouble}")


def screen(found: Reading[Status], rows: int = ROWS) -> Group:
    """What is shown, with so many devices: text from elsewhere is text, without colours or links of its own."""
    status, moment = found.answer, now()
    bad = found.trouble is not None or found.running is False
    parts: list[Text | Table] = [_text(health(found, moment), "bold red" if bad else "bold")]
    if status is None:
        return Group(*parts)
    parts += [_text(line) for line in round_words(status)]
    parts += [_devices(status, rows)] if status.devices else []
    if len(status.devices) > rows:
        parts.append(_text(f"and {len(status.devices) - rows} more, which do better; --json has all", "dim"))
    if status.lately:
        parts += [_text("\nwent wrong lately", "bold"), _lately(status)]
    if told := broker_words(status):
        parts.append(_text(f"\nbroker   {told}"))
    return Group(*parts, _text(f"\nas of {local(status.time)}", "dim"))


def _print(found: Reading[Status]) -> None:
    """Once, for a file or a pipe: nothing is folded at the edge of a screen that is not there."""
    console = Console(width=WIDTH, markup=False)
    with console.capture() as shown:
        console.print(screen(found))
    click.echo("\n".join(line.rstrip() for line in shown.get().splitlines()))


def _read(config: Config) -> Reading[Status]:
    return read(config, asking(config.rounds.lineage))


def _live(config: Config) -> int:
    with stopping() as stop, Live(auto_refresh=False) as live:
        due = time.monotonic()
        while not stop():
            if time.monotonic() >= due:
                rows = max(min(live.console.height - OTHER_LINES, ROWS), 1)
                live.update(screen(_read(config), rows), refresh=True)
                due = time.monotonic() + EVERY_S
            time.sleep(POLL_S)
    return stop.code


def _devices(status: Status, rows: int) -> Table:
    table = Table("device", "state", "in this round", "last seen", box=None, padding=(0, 2, 0, 0))
    for column in ("rounds", "accuracy", "CPU", "memory", "temp."):
        table.add_column(column, justify="right")
    spent = any(device.epsilon is not None for device in status.devices)
    if spent:
        table.add_column("epsilon", justify="right")
    for device in status.worst_first()[:rows]:
        cells = _cells(device, status) + ([_epsilon(device)] if spent else [])
        table.add_row(*(_text(cell) for cell in cells))
    return table


def _cells(device: Device, status: Status) -> list[str]:
    return [
        device.device, device.state, status.now.doing.get(device.device, "-"),
        how_long_ago(device.last_seen, status.time), str(device.rounds), _number(device.accuracy, ".4f"),
        _number(device.cpu_percent, ".0f", " %"), _number(device.memory_percent, ".0f", " %"),
        _number(device.temperature_c, ".0f", " °C"),
    ]  # fmt: skip


def _epsilon(device: Device) -> str:
    return "-" if device.epsilon is None else rounded_up(device.epsilon)


def _lately(status: Status) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for entry in status.lately:
        cells = (local(entry.said_at), entry.level, entry.device or "-", entry.text)
        table.add_row(*(_text(cell) for cell in cells))
    return table


def _text(text: str, style: str = "") -> Text:
    head = "\n" if text.startswith("\n") else ""
    return Text(head + printable(text.removeprefix("\n")), style=style, overflow="ellipsis")


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
