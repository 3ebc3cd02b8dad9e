"""`floe ...`: the list of commands, each imported when it is called, and where errors become exit codes."""

from __future__ import annotations

import importlib
import math
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, cast

import click

from floe import __version__
from floe.config import load
from floe.errors import ConfigError, FloeError
from floe.findings import Findings
from floe.output import guard_stdout
from floe.settings import Config, describe

COMMANDS = {
    "demo": ("demo.command", "a whole federation on this machine: broker, aggregator, devices"),
    "init": ("floe.commands", "write a commented floe.toml"),
    "key": ("floe.commands", "make the shared key of a federation"),
    "broker": ("broker.command", "run Mosquitto, configured for Floe"),
    "aggregator": ("aggregator.command", "run the rounds and keep the log"),
    "client": ("edge_client.command", "run one device"),
    "prepare": ("edge_client.data.prepare_command", "CSVs to features"),
    "data": ("edge_client.data.command", "split a data set over devices, show who holds what"),
    "federation": ("floe.federation", "devices that are enrolled: the root key, the operators, the roster"),
    "invite": ("floe.invite", "a code for a device that shall join"),
    "join": ("edge_client.join", "make this device's keys, and ask to be let in"),
    "devices": ("floe.devices", "who belongs: list, approve, reject, revoke, rotate"),
    "ui": ("ui.command", "the page: watch and steer in a browser"),
    "round": ("floe.steer", "steer the rounds: start, stop, pause, resume, status"),
    "plan": ("floe.replan", "the training plan: check it; show or set that of a running aggregator"),
    "models": ("aggregator.models_command", "list, show and export global models, choose the present one"),
    "status": ("ui.status_command", "how the federation is, live in the terminal"),
    "log": ("ui.log_command", "what happened, and what devices say: print, search, follow"),
    "diag": ("ui.diag", "one archive for a bug report, without secrets"),
    "check": ("floe.check", "verify what is on disk: database, models, spool, outbox"),
    "simulate": ("simulate.command", "many devices in one process, with the same models"),
    "bench": ("bench.command", "what a round and a transfer cost without training"),
    "tail": ("floe.tail", "print what travels over the broker, checked"),
}

_ATTRIBUTES = {"round": "round_"}  # `round` is a built-in
CHECKS = {"aggregator": "aggregator.check", "simulation": "simulate.check", "device": "edge_client.check"}
FITS = "edge_client.fits"


class Numbers(click.FloatRange):
    """A range of numbers for an option; `nan`, which is below nothing and above nothing, is none of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises `click.BadParameter`."""
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value}: no finite number")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), _ATTRIBUTES.get(cmd_name, cmd_name))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="floe")
def floe() -> None:
    """Federated learning on the edge, over the MQTT broker you already run."""


def check_of(part: str) -> Callable[[Config, str, Findings], None]:
    """What looks through the files of one of `CHECKS`: called with the name of the lineage or device."""
    check: Callable[[Config, str, Findings], None] = importlib.import_module(CHECKS[part]).check
    return check


class Fit(Protocol):
    """What tries a plan on the data of a device, by its name, and gives words."""

    def faults(self, config: Config, data: str) -> Iterable[str]:
        """What a device with this data would refuse."""

    def costs(self, config: Config, data: str) -> Iterable[str]:
        """What is spent of its rows' privacy."""


def fit_of_data() -> Fit:
    """The device's part of `floe plan check`."""
    return cast(Fit, importlib.import_module(FITS))


F = TypeVar("F", bound=Callable[..., Any])


def config_options(*, or_else: Callable[..., Any] | None = None, **flags: str) -> Callable[[F], F]:
    """Give a command `--config` and a flag for each of the named keys: `host="mqtt.host"`.

    The command is called with one `Config` as `config`; values are checked by `config.load`, not by click. Without one,
    `or_else` is called instead, with the `ConfigError` as `error`; by default that is raised.
    """

    def decorate(function: F) -> F:
        def call(config: str | None, **given: Any) -> Any:
            texts = {name: given.pop(name) for name in flags}
            chosen = {flags[name]: (_flag(name), text) for name, text in texts.items() if text is not None}
            try:
                loaded: Config = load(chosen, file=config)
            except ConfigError as error:
                if or_else is None:
                    raise
                return or_else(error=error, **given)
            return function(config=loaded, **given)

        call.__doc__, call.__name__ = function.__doc__, function.__name__
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        for name, target in reversed(flags.items()):
            meaning, allowed, default = describe(*target.split("."))
            shown = f" (default: {default})" if default not in ("", ()) else ""
            click.option(_flag(name), name, metavar="V", help=f"{meaning}: {allowed}{shown}")(call)
        click.option("--config", metavar="FILE", help="configuration (default: ./floe.toml)")(call)
        return call  # type: ignore[return-value]

    return decorate


to_aggregator = config_options(
    host="mqtt.host", port="mqtt.port", federation="federation.name", lineage="rounds.lineage"
)
reply_option = click.option(
    "--reply", "reply_s", type=Numbers(0.1, 3600), default=15.0, show_default=True, metavar="S",
    help="seconds to wait for each reply of the aggregator",
)  # fmt: skip


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _write_traceback() -> str:
    with tempfile.NamedTemporaryFile("w", prefix="floe-", suffix=".txt", delete=False) as file:
        traceback.print_exc(file=file)
    return file.name


def main() -> None:
    """The console script. Every `FloeError` is one line on stderr and its exit code; Ctrl-C is 130.

    What nobody foresaw ends with 70, and its traceback in a file: no traceback reaches a user.
    """
    guard_stdout()
    code = _ending(lambda: floe.main(standalone_mode=False))
    sys.exit(_ending(sys.stdout.flush) or code)


def _ending(run: Callable[[], Any]) -> int:
    try:
        code = run()
    except SystemExit as error:
        code = error.code
    except FloeError as error:
        print(f"floe: {error}", file=sys.stderr)
        code = error.exit_code
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("floe: interrupted", file=sys.stderr)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Exception as error:
        print(f"floe: a defect of Floe's: {error!r}; please report {_write_traceback()}", file=sys.stderr)
        code = 70  # EX_SOFTWARE of sysexits.h
    return code if isinstance(code, int) else 0
