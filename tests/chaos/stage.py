"""The stage of a chaos run: a real Mosquitto, an aggregator and devices behind the proxy, each on a disk of its own.

It kills and starts again, fills disks and frees them, sets clocks, and starts again what ended by itself because its
disk was full, as a service manager would.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from chaos.clock import OFFSET
from chaos.judge import Journal
from chaos.trainer import JOURNAL
from helpers.broker import broker_on, free
from helpers.federation import LINEAGE, Federation
from helpers.plain import SECTIONS
from helpers.process import Process
from helpers.proxy import Proxy

from broker import run

AGGREGATOR = "aggregator"
DISK_MB = 2048
FULL = 6  # the exit code of a StoreError
DEFECTS = ("Traceback", "a defect of Floe's")


class NoDisk(Exception):
    """This account may not mount a tmpfs."""


class Disk:
    """A file system in memory that is full when it is told to be: it gets as small as what is on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.full = False
        folder.mkdir(parents=True)
        done = _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "floe-chaos", str(folder))
        if done.returncode:
            raise NoDisk(f"a full disk needs the right to mount a tmpfs: {done.stderr.decode().strip()}")

    def fill(self) -> None:
        """No room for a single page any more. The disk is in use meanwhile: it may take a few attempts."""
        for _ in range(100):
            found = os.statvfs(self.folder)
            self._resize((found.f_blocks - found.f_bfree) * found.f_frsize)
            if not self._has_room():
                self.full = True
                return
        raise AssertionError(f"{self.folder}: could not be filled")

    def free(self) -> None:
        self._resize(DISK_MB << 20)
        self.full = False

    def close(self) -> None:
        _run("umount", "-l", str(self.folder))

    def _resize(self, size: int) -> None:
        _run("mount", "-o", f"remount,size={max(size, 4096)}", str(self.folder))

    def _has_room(self) -> bool:
        probe = self.folder / "probe"
        try:
            probe.write_bytes(b"x" * 4096)
        except OSError:
            return False
        finally:
            with suppress(OSError):
                probe.unlink()
        return True


class Stage:
    """A federation with quorum all that runs until it is told that it is enough."""

    def __init__(self, folder: Path, devices: int, seed: int) -> None:
        self.devices = [f"d{index + 1}" for index in range(devices)]
        self.names = [AGGREGATOR, *self.devices]
        self.died: list[str] = []
        self.restarted = 0
        self._folder = folder
        self._port = free()
        self._plan = {
            "mqtt": {"keepalive_s": 5, "connect_timeout_s": 0},
            "rounds": {"count": 1_000_000, "devices": devices, "quorum": devices, "grace_s": 1e6, "deadline_s": 1e6},
            "plan": {**SECTIONS["plan"], "scaling": "standard", "hidden": [50], "seed": seed},
            "trainers": {"plain": "chaos.trainer:Journaling"},
        }
        self._stack = ExitStack()
        self._broker_stack = ExitStack()
        self._processes: dict[str, Process] = {}
        self._again: dict[str, float] = {}
        self.broker: run.Mosquitto | None = None

    def __enter__(self) -> Stage:
        self.proxy = self._stack.enter_context(Proxy(self._port))
        self.federation = Federation(self._folder / "federation", self.proxy.port)
        self.federation.configure(self._plan)
        self.journal = Journal(self._folder / "journal")
        self.journal.folder.mkdir()
        (self._folder / "clocks").mkdir()
        try:
            self.disks = {name: self._disk(name) for name in self.names}
        except NoDisk:
            self._stack.close()
            raise
        self.start_broker()
        for index, device in enumerate(self.devices):
            self.federation.features(device, rows=30 + 7 * index)
        for name in self.names:
            self.start(name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.end()
        self._broker_stack.close()
        self._stack.close()

    def start_broker(self) -> None:
        self.broker = self._broker_stack.enter_context(broker_on(self._folder / "broker", self._port))

    def kill_broker(self) -> None:
        """kill -9: it keeps nothing on disk, so all that it knew is lost."""
        assert self.broker is not None
        os.kill(self.broker.pid, signal.SIGKILL)
        self._broker_stack.close()
        self.broker = None

    def start(self, name: str) -> None:
        env = {JOURNAL: str(self.journal.folder), OFFSET: str(self._clock(name))}
        by = ("chaos.clock",)
        arguments = [AGGREGATOR] if name == AGGREGATOR else ["client", "--id", name, "--data", f"features/{name}"]
        self._processes[name] = self.federation.start(name, *arguments, env=env, by=by)

    def running(self, name: str) -> bool:
        return self._processes[name].running

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._again.pop(name, None)

    def on_wire(self, name: str) -> str:
        """The name in the client identifier."""
        return LINEAGE if name == AGGREGATOR else name

    def set_clock(self, name: str, seconds: float) -> None:
        part = self._clock(name).with_suffix(".part")
        part.write_text(f"{seconds}")
        part.replace(self._clock(name))

    def look_after(self, down: set[str]) -> None:
        """Start again who ended by itself for want of room, a while later; note who ended otherwise. `down`: killed."""
        now = time.monotonic()
        for name, process in self._processes.items():
            if process.running or name in down:
                continue
            if name not in self._again:
                self._again[name] = now + 1.0
                if (code := process.wait()) != FULL:
                    self.died.append(f"{name} ended by itself with code {code}: {process.said()[-500:]}")
            elif now >= self._again[name]:
                del self._again[name]
                self.restarted += 1
                self.start(name)

    def come_to_rest(self, timeout_s: float) -> list[str]:
        """One more round and the end; what does not come to it in time."""
        rounds = max(self.federation.models(), default=0) + 1
        self._plan["rounds"] = {**self._plan["rounds"], "count": rounds}
        self.federation.configure(self._plan)
        self._processes[AGGREGATOR].terminate()
        self._processes[AGGREGATOR].end()
        self.start(AGGREGATOR)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.look_after(set())
            outboxes = [path for name in self.devices for path in (self._state(name) / "outbox").glob("*.json")]
            if not outboxes and self.federation.query("SELECT * FROM events WHERE kind = 'finished'"):
                return []
            time.sleep(0.2)
        return [f"no rest after {timeout_s:g} s: {rounds} rounds were to end; in outboxes: {list(map(str, outboxes))}"]

    def defects(self) -> list[str]:
        """Logs in which a process speaks of a defect."""
        logs = sorted((self.federation.folder / "logs").glob("*.log"))
        return [f"{log.name}: {word}" for log in logs for word in DEFECTS if word in log.read_text(errors="replace")]

    def said_full(self) -> bool:
        """Whether a process has met its full disk."""
        said = self.federation.said()
        return "o space left" in said or "is full" in said

    def clock_jumped(self) -> bool:
        """Whether the aggregator wrote down times that are hours apart, one after the other."""
        times = [datetime.fromisoformat(row["time"]) for row in self.federation.query("SELECT * FROM events")]
        return any(abs(later - earlier) > timedelta(hours=6) for earlier, later in pairwise(times))

    def _state(self, name: str) -> Path:
        inner = f"aggregator-{LINEAGE}" if name == AGGREGATOR else f"device-{name}"
        return self.federation.folder / "state" / inner

    def _clock(self, name: str) -> Path:
        return self._folder / "clocks" / name

    def _disk(self, name: str) -> Disk:
        disk = Disk(self._folder / "disks" / name)
        self._stack.callback(disk.close)
        places = [self._state(name)]
        if name == AGGREGATOR:
            places += [self.federation.folder / place for place in ("log", "models/global", "models/devices")]
        for place in places:
            target = disk.folder / place.name
            target.mkdir()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)
        return disk


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, check=False)
