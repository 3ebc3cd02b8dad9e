"""How a running federation is shown: a live picture in a terminal, a line for each closed phase elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.summary import PhaseRow, Progress, RoundRow, Scores, Summary
from floe.terminal import size_words

SHOWN_DEVICES = 12
SHOWN_ROUNDS = 6
WAITING = "waiting for the devices"


class Display:
    """A block in which `update` shows how far the federation is."""

    def __init__(self, console: Console, title: str, rounds: int, *, live: bool) -> None:
        self._console = console
        self._title = title
        self._rounds = rounds
        self._told: set[str] = set()
        self._since = time.monotonic()
        self._opened = 0
        # Drawn from the loop alone: a thread of rich's own would be there when processes are started.
        self._live = Live(console=console, auto_refresh=False, transient=True) if live else None

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        else:
            self.tell(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def stage(self, text: str) -> None:
        """What is being done before there is a round."""
        if self._live:
            self._live.update(Group(Text(self._title, style="bold"), Text(text)), refresh=True)
        else:
            self.tell(text)

    def tell(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, now: Progress) -> None:
        """Show where the federation is."""
        if len(now.phases) != self._opened:
            self._opened, self._since = len(now.phases), time.monotonic()
        if self._live:
            seconds = time.monotonic() - self._since
            self._live.update(picture(self._title, now, self._rounds, seconds), refresh=True)
            return
        lines = [_closed_words(phase, now, self._rounds) for phase in now.phases if phase.closed]
        refused = [f"{a.device}: {a.outcome}: {a.reason}" for a in now.answers if a.outcome == "rejected"]
        for line in [*lines, *refused]:
            if line not in self._told:
                self._told.add(line)
                self.tell(line)


def picture(title: str, now: Progress, rounds: int, seconds: float) -> Group:
    """What the live display shows."""
    parts: list[Text | Table] = [Text(title, style="bold"), Text(_headline(now, rounds, seconds), style="cyan")]
    if now.devices:
        parts.append(_devices(now))
    if now.models:
        parts.append(_models(now))
    return Group(*parts)


def round_table(summary: Summary) -> Table:
    """The table at the end: a line for each round."""
    table = _table("round", "devices", "loss", "accuracy", "ROC-AUC", "up", "down", "seconds")
    for row in summary.table:
        table.add_row(*_round_cells(row))
    return table


def score_words(score: Scores) -> str:
    """loss 0.1234, accuracy 97.4 %, ROC-AUC 0.9876"""
    auc = f", ROC-AUC {_number(score.roc_auc)}" if score.roc_auc is not None else ""
    return f"loss {_number(score.loss)}, accuracy {_percent(score.accuracy)}{auc}"


def _closed_words(phase: PhaseRow, now: Progress, rounds: int) -> str:
    words = f"round {phase.round} of {rounds}: {phase.task} closed, {phase.seconds:.1f} s"
    # A phase measures the model that it starts from: training that of the round before.
    number = phase.round - (phase.task == "train")
    if phase.task in ("sums", "init") or number not in now.models:
        return words
    return f"{words}; global model {number}: {score_words(now.models[number])}"


def _headline(now: Progress, rounds: int, seconds: float) -> str:
    if not now.phases:
        return WAITING
    phase = now.phases[-1]
    answered = len({answer.device for answer in now.answers})
    return (
        f"round {phase.round} of {rounds}: {phase.task}, "
        f"{answered} of {len(phase.expected)} devices answered, {seconds:.0f} s"
    )


def _devices(now: Progress) -> Table:
    table = _table(
        "device", "state", "rows", "loss", "accuracy", "ROC-AUC", "answer", left=("device", "state", "answer")
    )
    answers = {answer.device: answer for answer in now.answers}
    for device in now.devices[:SHOWN_DEVICES]:
        answer = answers.get(device.name)
        word = "" if answer is None else ": ".join(filter(None, (answer.outcome, answer.reason)))
        before, after = device.before, device.after
        table.add_row(
            Text(device.name),
            Text(device.state, style=_STYLES.get(device.state, "")),
            str(device.rows or ""),
            _change(_number(before.loss), _number(after.loss)),
            _change(_percent(before.accuracy), _percent(after.accuracy)),
            _change(_number(before.roc_auc), _number(after.roc_auc)),
            Text(word, style="red" if word.startswith("rejected") else ""),
        )
    if len(now.devices) > SHOWN_DEVICES:
        table.add_row(f"and {len(now.devices) - SHOWN_DEVICES} more", *[""] * 6)
    return table


def _models(now: Progress) -> Table:
    table = _table("global model", "loss", "accuracy", "ROC-AUC", left=("global model",))
    for number in sorted(now.models)[-SHOWN_ROUNDS:]:
        score = now.models[number]
        table.add_row(str(number), _number(score.loss), _percent(score.accuracy), _number(score.roc_auc))
    return table


def _table(*columns: str, left: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right")
    return table


def _round_cells(row: RoundRow) -> tuple[str, ...]:
    score = row.scores
    return (
        str(row.round),
        str(row.devices),
        _number(score.loss),
        _percent(score.accuracy),
        _number(score.roc_auc),
        size_words(row.bytes_up),
        size_words(row.bytes_down),
        f"{row.seconds:.1f}",
    )


def _change(before: str, after: str) -> str:
    return f"{before} → {after}" if before and after else before or after


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


_STYLES = {"training": "yellow", "idle": "green", "online": "green", "offline": "red"}
