"""`floe simulate`: from Config and a folder of feature folders to rounds in this process."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import click
from msgspec.structs import replace

from aggregator.log import Log
from edge_client.data.folder import ARRAYS
from edge_client.data.load import load
from floe.accounting import check_affordable
from floe.cli import config_options
from floe.errors import ConfigError, DataError, StoreError
from floe.identity import load_identity
from floe.names import fault_of
from floe.service import only_one, stopping
from floe.settings import Config
from floe.soundness import check_sound
from simulate.federation import Federation
from simulate.judge import Examiner, Judge
from simulate.results import Results

SHOWN = 5  # of what is passed over


@click.command()
@click.option("--features", type=click.Path(path_type=Path), default=Path("features"), show_default=True,
              help="folder with one feature folder for each device, as `floe data split` writes")  # fmt: skip
@click.option("--test", type=click.Path(path_type=Path),
              help="feature folder whose test rows measure the global model after every round")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), help="append one JSON object per round to this file")
@config_options(
    rounds="rounds.count",
    devices="rounds.devices",
    fraction="rounds.fraction",
    target="rounds.target",
    model="plan.model",
    epochs="plan.epochs",
    batch_size="plan.batch_size",
    learning_rate="plan.learning_rate",
    optimizer="plan.optimizer",
    scaling="plan.scaling",
    mu="plan.mu",
    seed="plan.seed",
    threads="device.threads",
)
def simulate(config: Config, features: Path, test: Path | None, results: Path | None) -> None:
    """Run a federation of many devices in this process, without a broker: the same models as the real one, quicker.

    Log, models and state are those of an aggregator: `floe status`, `floe log`, `floe models` and `floe ui` show them.
    It goes on where it was when it starts again, from the next round on with the plan that it is given then. A round
    that fails on every device that was selected ends it; it is not counted when it goes on, with a mended plan. With
    --test, [rounds] target is about those test rows.
    """
    check_sound(config.plan, config.rounds)
    check_affordable(config.plan)
    if config.rounds.mode == "asynchronous":
        raise ConfigError('[rounds] mode = "asynchronous" depends on who is first; `floe simulate` runs "rounds" only')
    if test and config.plan.personal:
        raise ConfigError("--test measures a global model, which is not whole without the personal layers of a device")
    devices = feature_folders(features, test)
    _check_number(config, len(devices))
    sys.path.append(str(config.folder))  # a model of the user's own may lie beside floe.toml
    state = config.path(config.paths.state) / f"aggregator-{config.rounds.lineage}"
    folder = config.path(config.paths.log)
    with stopping() as stop, only_one(state, "aggregator"):
        examiner = Examiner(config, test, state) if test else None
        kept = Results(results)
        try:
            with closing(Log(folder)) as log:
                _federation(config, devices, log, state, Judge(config.rounds, log, kept, examiner)).run(stop)
                if stop():
                    log.event("info", "stopped", "stopped; start it again to go on")
        except sqlite3.Error as error:
            raise StoreError(f"{folder}: {error}; move the log away to begin a new one, or restore a backup") from None
    sys.exit(stop.code)


def _federation(config: Config, devices: dict[str, Path], log: Log, state: Path, judge: Judge) -> Federation:
    if judge.measures:  # then the target is not about what the devices measure
        config = replace(config, rounds=replace(config.rounds, target=0.0))
    return Federation(config, devices, load_identity(state / "keys", config.rounds.lineage), log, state, judge)


def feature_folders(parent: Path, test: Path | None = None) -> dict[str, Path]:
    """The feature folders in a folder, by the name of the device. Raises `DataError`."""
    if not parent.is_dir():
        raise DataError(f"--features {parent}: no such folder; `floe data split` makes one")
    inside = [path for path in sorted(parent.iterdir()) if (path / f"{ARRAYS[0]}.npy").is_file()]
    found = {path.name: path.absolute() for path in inside if test is None or path.resolve() != test.resolve()}
    if not found:
        raise DataError(
            f"--features {parent}: holds no feature folder; expected {parent}/<device>/{ARRAYS[0]}.npy ..., as "
            "`floe data split --out` writes"
        )
    for name, path in found.items():
        if fault := fault_of(name, certificate=False):
            raise DataError(f"{path}: {fault}")
        load(str(path), {}, Path())  # what is wrong with the data of any is told before the first one trains
    if others := [path.name for path in sorted(parent.iterdir()) if path not in inside]:
        click.echo(
            f"passed over, no feature folders: {', '.join(others[:SHOWN])}{' ...' * (len(others) > SHOWN)}", err=True
        )
    return found


def _check_number(config: Config, there: int) -> None:
    for key, needed in (("devices", config.rounds.devices), ("quorum", config.rounds.quorum)):
        if there < needed:
            raise ConfigError(f"[rounds] {key} = {needed}, but there are {there} feature folders: lower {key}")
