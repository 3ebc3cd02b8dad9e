"""What the page does, it does as a person in a terminal: it runs `floe round`, `floe plan`, `floe devices` and reads
what they answer. One command at a time, of all that look at the page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from floe.asker import anchor_here, check_open, load_asker, newest_delegation
from floe.config import FILE
from floe.errors import FloeError
from floe.settings import Config

TIMEOUT_S = 120.0  # more than a command waits by itself: 30 s for a broker, 15 s for each reply


@dataclass(frozen=True)
class Answer:
    """How a command ended. `code` as the shell gives it, -1 where it was not run to its end."""

    code: int
    stdout: str
    stderr: str

    @property
    def done(self) -> bool:
        return self.code == 0

    @property
    def said(self) -> str:
        """What a person reads: what it printed, or the last line of why it did not."""
        lines = (self.stdout if self.done else self.stderr).strip().splitlines() or [f"ended with code {self.code}"]
        return "\n".join(lines) if self.done else lines[-1].removeprefix("floe: ")


def run(config: Config, *arguments: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """`floe ARGUMENTS` with the configuration that the page was started with. Raises nothing: a fault is an answer."""
    if any("\0" in argument for argument in arguments):
        return Answer(-1, "", "a NUL stands in what was typed; no command takes that")
    if config.file is None and os.path.lexists(config.folder / FILE):
        fault = f"{config.folder / FILE} was made since `floe ui` was started without it: start `floe ui` again"
        return Answer(-1, "", fault)
    named = () if config.file is None else ("--config", str(config.file))
    try:
        # What stands after "--" is a name, whatever it begins with; options come before it.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "floe", *_with(arguments, named)],
            cwd=config.folder if config.file is None else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        fault = f"no end after {timeout_s:g} s, so it was ended; what became of it, the log will tell"
        return Answer(-1, "", fault)
    except OSError as error:
        return Answer(-1, "", f"{sys.executable}: cannot be run: {error.strerror or error}")
    return Answer(done.returncode, done.stdout, done.stderr)


def _with(arguments: tuple[str, ...], options: tuple[str, ...]) -> tuple[str, ...]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at] + options + arguments[at:]


def may_steer(config: Config) -> str:
    """Empty where an operator's key is here and counts; else why nothing can be signed. Reads files, writes none."""
    try:
        asker = load_asker(config)
        anchor = anchor_here(config)
        if asker.known is not None and anchor is not None:
            check_open(newest_delegation(config, anchor)[1], time.time())
    except FloeError as error:
        return str(error)
    return ""


@dataclass
class Job:
    """A command that somebody has asked for. `answer` is None until it has ended."""

    arguments: tuple[str, ...]
    answer: Answer | None = None

    @property
    def shown(self) -> str:
        """As one would type it."""
        return " ".join(("floe", *self.arguments))


class Jobs:
    """Commands run beside the page, which goes on meanwhile. One at a time: a second click changes nothing."""

    def __init__(self, call: Callable[..., Answer] = run) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._job: Job | None = None

    @property
    def running(self) -> Job | None:
        """The command that has not ended yet, whoever asked for it."""
        job = self._job
        return job if job is not None and job.answer is None else None

    def start(self, config: Config, *arguments: str) -> Job | None:
        """Begin a command; None, and nothing happens, while another is running."""
        with self._lock:
            if self.running is not None:
                return None
            self._job = job = Job(arguments)
        threading.Thread(target=self._work, args=(config, job), daemon=True).start()
        return job

    def _work(self, config: Config, job: Job) -> None:
        try:
            job.answer = self._call(config, *job.arguments)
        except Exception as error:  # whatever it is: a job without an end would bar all others
            job.answer = Answer(1, "", f"the command could not be run: {str(error) or type(error).__name__}")


JOBS = Jobs()
