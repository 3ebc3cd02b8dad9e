"""Starts and stops one Mosquitto. Touches its folder, its process (by pid) and its port; nothing else."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import pwd
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from broker.render import ACL, CONFIGURATION, PASSWORDS, access, check, configuration
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

    def __init__(self, process: subprocess.Popen[bytes], address: tuple[str, int], folder: Path) -> None:
        self._process = process
        self.host, self.port = address
        self.folder = folder

    @property
    def pid(self) -> int:
        """Process id of mosquitto."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end (it saves its sessions), kill it when it does not within ten seconds. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def start(config: Config, folder: Path, *, log_to_stderr: bool = False) -> Iterator[Mosquitto]:
    """Run Mosquitto with its files in `folder` (made, mode 0700) until the block ends.

    It accepts connections when the block begins. Its log goes to `folder/mosquitto.log`, or to our stderr.
    Raises `ConfigError` (what must not be rendered), `StoreError` (the folder), `BrokerError` (not installed, port
    taken, died at the start).
    """
    check(config)
    program = find(config.broker.mosquitto)
    bind, port = config.broker.bind, config.mqtt.port
    _check_port(bind, port)
    folder = folder.absolute()
    _write(config, folder)
    _allow_descriptors()
    with _log(folder, log_to_stderr) as log:
        # A session of its own: Ctrl-C in a terminal reaches us, and we stop it after the clients had their say.
        process = subprocess.Popen(
            [program, "-c", str(folder / CONFIGURATION)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=dying_with_parent(),
        )
    broker = Mosquitto(process, (_reachable(bind), port), folder)
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


def _write(config: Config, folder: Path) -> None:
    texts = {CONFIGURATION: configuration(config, folder, _account()), ACL: access(config)}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name, text in texts.items():
            _private(folder / name, text)
        if config.mqtt.username:
            _write_passwords(folder / PASSWORDS, config.mqtt.username, config.mqtt.password)
    except OSError as error:
        raise StoreError(f"{folder}: the broker's files cannot be written: {error.strerror}") from None


def _allow_descriptors() -> None:
    """Every client is an open file: the usual limit, 1024, is raised to the highest that Mosquitto may inherit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container run under a number; Mosquitto asks for a name only where root starts it
        return str(os.getuid())


def _private(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


def _write_passwords(path: Path, username: str, password: str) -> None:
    # On stdin, twice, as a person would type it: an argument could be read by every account of the machine.
    done = subprocess.run(
        [find("mosquitto_passwd"), "-c", str(path), username],
        input=f"{password}\n{password}\n".encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise BrokerError(f"mosquitto_passwd could not write {path}: {done.stderr.decode(errors='replace').strip()}")
    path.chmod(0o600)


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
