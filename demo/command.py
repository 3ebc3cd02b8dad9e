"""`floe demo`: a whole federation on this machine, every part a process of its own. Writes one folder, reads its log.

It does what a person would: writes floe.toml, divides the data, starts `floe broker` and `floe aggregator`, has every
device join, starts one `floe client` for each, and follows the log until every round has closed.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from demo import enrol, page
from demo import folder as demo_folder
from demo.display import Display, round_table, score_words
from demo.folder import CLIENTS, Settings
from demo.presets import PRESETS
from demo.summary import Progress, Summary, progress, summary
from floe.children import Children, await_port, free_port
from floe.cli import Numbers
from floe.errors import IncompleteError, StoreError
from floe.messages import Suite
from floe.partitions import ALPHA_HELP, BY_HELP, How
from floe.service import stopping
from floe.settings import Config
from floe.sqlite import Database
from floe.store import CSV, FILE, read_log
from floe.terminal import size_words

POLL_S = 0.2
SIGTERM_CODE = 143  # as the shell gives it
Stopped = Callable[[], bool]
Tell = Callable[[Config], None]
Values = dict[str, dict[str, Any]]
MODELS = ("autoencoder", "cnn", "linear", "mlp")


def _named(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("empty; see --help for what can be named")
    return value


def _finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of seconds")
    return value


@click.command()
@click.option("--data", "source", default="breast-cancer", show_default=True, callback=_named,
              help=f"{', '.join(PRESETS)}, or a folder")  # fmt: skip
@click.option("--clients", type=click.IntRange(1, 1000), help="devices  [default: 3; of a folder of devices: all]")
@click.option("--rounds", type=click.IntRange(1, 1_000_000), default=10, show_default=True, help="training rounds")
@click.option("--partition", type=click.Choice(get_args(How)), default="iid", show_default=True)
@click.option("--alpha", type=float, help=ALPHA_HELP)
@click.option("--by", metavar="COL", help=BY_HELP)
@click.option("--rows", type=click.IntRange(min=1), help="use only so many training rows")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="data, weights, shuffling")
@click.option("--model", type=click.Choice(MODELS), help="another model than the data set's own")
@click.option("--report", type=click.Choice(["weights", "accuracy"]), default="weights", show_default=True)
@click.option("--suite", type=click.Choice(["auto", *get_args(Suite)]), default="auto", show_default=True,
              help="fernet and plaintext: without enrolment")  # fmt: skip
@click.option("--shared-key", is_flag=True, help="one secret.key for all instead of enrolled devices")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the run  [default: runs/DATA-DATE-TIME]")
@click.option("--patience", type=Numbers(min=1), default=600.0, show_default=True, metavar="S",
              callback=_finite, help="give up when nothing has moved for so many seconds")  # fmt: skip
@click.option("--ui", "with_page", is_flag=True, help="the page (`floe ui`) beside it; stays until Ctrl-C")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout, progress on stderr")
def demo(out: Path | None, patience: float, with_page: bool, as_json: bool, **choices: Any) -> None:
    """Run a whole federation on this machine and show how it learns.

    A folder is one data set to divide, or holds a folder of features for each device (train_x.npy ...).
    FLOE_PLAN_... variables change the training plan. The folder of the run keeps floe.toml, the features, the log and
    the models; in it `floe broker`, `floe aggregator` and `floe client` go on by hand.
    """
    settings, console, started = Settings(**choices), Console(stderr=as_json), time.monotonic()
    if with_page:
        page.check()

    def tell(config: Config) -> None:
        with closing(read_log(_log(config)).conn) as connection:
            result = summary(Database(connection))
        if as_json:
            click.echo(json.dumps(_fields(config, result, time.monotonic() - started)))
            sys.stdout.flush()
        else:
            _tell(console, config, result, time.monotonic() - started)

    with stopping() as stop, demo_folder.run_folder(out, settings) as folder:
        display = Display(console, settings.title, settings.rounds, live=console.is_terminal and not as_json)
        config = _run(folder, settings, patience, display, stop, tell if with_page else None)
    if config is None:
        click.echo(f"floe: stopped before every round was closed; what was done is in {_near(folder)}", err=True)
        sys.exit(stop.code or SIGTERM_CODE)
    if not with_page:
        tell(config)


def _run(
    folder: Path, settings: Settings, patience_s: float, display: Display, stop: Stopped, tell: Tell | None
) -> Config | None:
    """The federation from its first process to its last; None if it was stopped before every round had closed.

    With `tell` there is a page: when the rounds are over they are told, and all goes on until `stop`.
    """
    port, devices = free_port(), demo_folder.own_devices(settings)
    values = demo_folder.decided(settings, port, len(devices) or settings.clients or CLIENTS)
    environ = demo_folder.environment(values, os.environ)
    with Children(folder, environ) as children:
        with display:
            config = _started(children, folder, settings, values, devices, display, stop)
            address = page.start(children, display.tell, stop, enrols=settings.enrols) if config and tell else ""
            done = config is not None and _follow(children, config, patience_s, display, stop)
        if config is None or not done:
            return None
        if tell:
            tell(config)
            display.tell(f"the page: {address} (Ctrl-C ends it, and the federation)")
            page.stay(children, stop)
        return config


def _started(
    children: Children, folder: Path, settings: Settings, values: Values, devices: dict[str, Path], display: Display,
    stop: Stopped,
) -> Config | None:  # fmt: skip
    """Broker, data, aggregator and devices; None if it was stopped. `devices` are those that the data brings."""
    port, count = values["mqtt"]["port"], values["rounds"]["devices"]
    display.stage("starting the broker" if devices else "starting the broker, dividing the data")
    broker = children.start("broker", "broker", "--port", str(port))
    if not devices:
        children.wait(children.start("split", *settings.split_arguments(count)), stop)
        devices = {f"device-{number}": folder / "features" / f"device-{number}" for number in range(1, count + 1)}
    await_port(broker, port, stop)
    if stop():
        return None
    plan = demo_folder.plan_for(settings, next(iter(devices.values())))
    config = demo_folder.write(folder, values, plan, demo_folder.environment(values, os.environ))
    demo_folder.write_key(folder, settings)
    display.stage(f"the run is kept in {_near(folder)}")
    if settings.enrols:
        display.stage("making the federation, letting the devices in")
        enrol.found(children, stop)
    children.start("aggregator", "aggregator")
    if settings.enrols:
        enrol.let_in(children, list(devices), stop)
    if stop():
        return None
    for name, features in devices.items():
        children.start(name, "client", "--id", name, "--data", str(features))
    sealed = f"{'enrolled, ' if settings.enrols else ''}suite {config.security.suite}"
    display.stage(f"model {config.plan.model}, {len(devices)} devices, {sealed}")
    return config


def _follow(children: Children, config: Config, patience_s: float, display: Display, stop: Stopped) -> bool:
    """Show the log until every round has closed; False if stopped. Raises `IncompleteError`."""
    seen, moved = Progress(), time.monotonic()
    while not stop():
        child = children.ended()
        now = _progress(_log(config))
        display.update(now)
        if now.closed(config.rounds.count, config.plan.report):
            return True
        if child is not None:
            raise IncompleteError(f"{_where(now)}: {child.fault()}")
        if void := now.void():
            raise IncompleteError(f"{void.task} {void.round}: every device was refused; the log is {_log(config)}")
        if refusals := now.refused():
            said = "; ".join(f"{refusal.device}: {refusal.reason}" for refusal in refusals[:5])
            raise IncompleteError(f"{_where(now)}: every device was refused: {said}. The log is {_log(config)}")
        if now != seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > patience_s:
            logs = config.folder / "logs"
            raise IncompleteError(f"{_where(now)}: nothing has moved for {patience_s:g} s; see the logs in {logs}")
        time.sleep(POLL_S)
    return False


def _progress(path: Path) -> Progress:
    # Before the aggregator has made the file and its tables, nothing has happened.
    try:
        with closing(read_log(path).conn) as connection:
            return progress(Database(connection))
    except (StoreError, sqlite3.OperationalError):
        return Progress()


def _where(now: Progress) -> str:
    if not now.phases:
        return "no round was opened"
    return f"{now.phases[-1].task} {now.phases[-1].round} did not close"


def _log(config: Config) -> Path:
    return config.path(config.paths.log) / FILE


def _near(path: Path) -> Path:
    """A path as a person here would type it: relative to the working folder where it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _fields(config: Config, result: Summary, seconds: float) -> dict[str, Any]:
    return {
        "rounds": config.rounds.count,
        "clients": config.rounds.devices,
        "accuracy": result.final.accuracy,
        "roc_auc": result.final.roc_auc,
        "loss": result.final.loss,
        "updates_accepted": result.updates_accepted,
        "bytes_up": result.bytes_up,
        "bytes_down": result.bytes_down,
        "model_sha256": result.model_sha256,
        "database": str(_log(config)),
        "models": str(config.path(config.paths.models)),
        "suite": ", ".join(result.suites),
        "seed": config.plan.seed,
        "seconds": round(seconds, 1),
    }


def _tell(console: Console, config: Config, result: Summary, seconds: float) -> None:
    console.print(round_table(result))
    what = "global model" if result.model_sha256 else "the devices' own models"
    lines = (
        f"{what}: {score_words(result.final)}",
        f"{result.updates_accepted} updates, {size_words(result.bytes_up)} up, {size_words(result.bytes_down)} down, "
        f"{seconds:.1f} s in all; suite {', '.join(result.suites)}",
        f"log     {_near(_log(config))}",
        f"csv     {_near(_log(config).with_name(CSV))}",
        f"models  {_near(config.path(config.paths.models))}",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
