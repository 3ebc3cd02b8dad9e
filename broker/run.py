"""Starts and stops one Mosquitto. Touches its folder, its process (by pid) and its port; nothing else."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from broker.members import Members
from broker.render import CONFIGURATION, ServerFiles, check, configuration, files
from floe.errors import BrokerError, ConfigError, StoreError
from floe.service import dying_with_parent
from floe.settings import Config

LOG = "mosquitto.log"

_INSTALL = "sudo apt-get install mosquitto mosquitto-clients"
_START_S = 10.0
_STOP_S = 10.0
_POLL_S = 0.02
# Debian keeps daemons where the PATH of an ordinary user does not look.
_SBIN = os.pathsep.join(("/usr/local/sbin", "/usr/sbin"))


class Mosquitto:
    """A running broker: where it listens, where its files are, and whether it still runs."""

    def __init__(
        self, process: subprocess.Popen[bytes], address: tuple[str, int], folder: Path, config: Config
    ) -> None:
        self._process = process
        self._config = config
        self.host, self.port = address
        self.folder = folder

    @property
    def pid(self) -> int:
        """Process id of mosquitto."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def reload(self, members: Members | None) -> None:
        """Replace ACL and password file, and have Mosquitto read them, and its certificate, again: no restart.

        Rights change for connected clients, too. One whose password is gone is cut; one whose certificate still holds
        stays, without rights. Raises `StoreError`, `ConfigError`.
        """
        _write(self.folder, files(self._config, members))
        until = time.monotonic() + _START_S
        while not _hears_reload(self.pid) and time.monotonic() < until:
            time.sleep(_POLL_S)
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Ask it to end (it saves its sessions), kill it when it does not within ten seconds. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def start(
    config: Config,
    folder: Path,
    *,
    members: Members | None = None,
    tls: ServerFiles | None = None,
    log_to_stderr: bool = False,
) -> Iterator[Mosquitto]:
    """Run Mosquitto with its files in `folder` (made, mode 0700) until the block ends.

    `members` for every [mqtt] login but "shared"; `tls` where [mqtt] tls is set.
    It accepts connections when the block begins. Its log goes to `folder/mosquitto.log`, or to our stderr.
    Raises `ConfigError` (what must not be rendered), `StoreError` (the folder), `BrokerError` (not installed, port
    taken, died at the start).
    """
    check(config)
    program = find(config.broker.mosquitto)
    bind, port = config.broker.bind, config.mqtt.port
    for taken in filter(None, (port, config.mqtt.lobby_port)):
        _check_port(bind, taken)
    folder = folder.absolute()
    _write(folder, {CONFIGURATION: configuration(config, folder, _account(), tls)} | files(config, members))
    _allow_descriptors()
    with _log(folder, log_to_stderr) as log:
        # A session of its own: Ctrl-C in a terminal reaches us, and we stop it after the clients had their say.
        process = subprocess.Popen(
            [program, "-c", str(folder / CONFIGURATION)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_prepared(dying_with_parent()),
        )
    broker = Mosquitto(process, (_reachable(bind), port), folder, config)
    try:
        _wait(broker)
        yield broker
    finally:
        broker.stop()


def find(program: str) -> str:
    """The path of mosquitto or one of its tools; raises `BrokerError` with the command that installs them."""
    path = shutil.which(program) or shutil.which(program, path=_SBIN)
    if path is None:
        raise BrokerError(f"{program}: not found on this machine; install it: {_INSTALL}")
    return path


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    # Whole or not at all: with an ACL that it cannot read Mosquitto lets everybody do everything. Written anew at
    # every start, so nothing needs to reach the disk.
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name, text in texts.items():
            part = folder / f".{name}.part"
            part.touch(mode=0o600)
            part.chmod(0o600)
            part.write_text(text, encoding="utf-8")
            part.replace(folder / name)
    except OSError as error:
        raise StoreError(f"{folder}: the broker's files cannot be written: {error.strerror}") from None


def _prepared(before: Callable[[], None] | None) -> Callable[[], None]:
    """A reload before Mosquitto has its handler must not end it, as SIGHUP does by default."""

    def call() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if before is not None:
            before()

    return call


def _hears_reload(pid: int) -> bool:
    """Whether a process handles SIGHUP yet: Mosquitto takes connections a moment before it does. True if unknown."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGHUP - 1) & 1)
    return True


def _allow_descriptors() -> None:
    """Every client is an open file: the usual limit, 1024, is raised to the highest that Mosquitto may inherit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container run under a number; Mosquitto asks for a name only where root starts it
        return str(os.getuid())


@contextlib.contextmanager
def _log(folder: Path, to_stderr: bool) -> Iterator[int | None]:
    if to_stderr:
        yield None
        return
    with (folder / LOG).open("wb") as file:
        yield file.fileno()


def _check_port(bind: str, port: int) -> None:
    # Mosquitto itself would say so only in its log, and something else would answer our first connection.
    try:
        kind, *_, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (socket.gaierror, UnicodeError) as error:  # the second: "a..b" is no host name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"broker.bind = {bind!r}: no such address ({reason})") from None
    except OSError as error:
        raise _port_error(error, bind, port) from None


def _port_error(error: OSError, bind: str, port: int) -> BrokerError | ConfigError:
    if error.errno == errno.EADDRINUSE:
        return BrokerError(
            f"port {port} on {bind} is taken, perhaps by a Mosquitto that the distribution started"
            " (systemctl status mosquitto); choose another with --port, or use that one with --host"
        )
    if error.errno == errno.EACCES:
        return BrokerError(f"port {port} on {bind}: only root may listen below 1024; choose another with --port")
    return ConfigError(f"broker.bind = {bind!r}: this machine cannot listen there ({error.strerror})")


def _reachable(bind: str) -> str:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(bind)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
    return bind


def _wait(broker: Mosquitto) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if broker.exit_code() is not None:
            raise BrokerError(f"mosquitto ended at the start with code {broker.exit_code()}{_tail(broker.folder)}")
        with contextlib.suppress(OSError), socket.create_connection((broker.host, broker.port), 1.0):
            return
        time.sleep(_POLL_S)
    raise BrokerError(f"mosquitto does not answer on {broker.host}:{broker.port}{_tail(broker.folder)}")


def _tail(folder: Path) -> str:
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "; see its messages above"
    return "\n".join([f"; the end of {folder / LOG}:", *lines[-8:]])
