"""What an observer on the broker sees of a round, and when. Hears everything but the chunks: of those the last ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from floe.errors import Refused
from floe.messages import Answer, Manifest, Round
from floe.session import Received, Session
from floe.settings import Mqtt
from floe.signing import verify
from floe.topics import AnswerTo, CurrentRound, DeviceManifest, ModelChunk, ModelManifest, filter_of, parse


@dataclass
class Seen:
    """Moments of one training round, on the monotonic clock of the machine; empty while nothing was seen."""

    opened: list[float] = field(default_factory=list)
    announced: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)
    pushed: list[float] = field(default_factory=list)


class Listener:
    """Listens to the federation of a benchmark; `chunks` is the number of chunks of its models.

    Without `updates` not to what devices announce and are answered: of a thousand that is work.
    """

    def __init__(self, port: int, chunks: int, *, updates: bool = True) -> None:
        kinds = (CurrentRound, ModelManifest, *((DeviceManifest, AnswerTo) if updates else ()))
        filters = [filter_of(kind) for kind in kinds] + [filter_of(ModelChunk, index=str(chunks - 1))]
        self._session = Session(Mqtt(port=port), "floe-bench", filters, None)
        self.rounds: dict[int, Seen] = {}
        self.finished = False

    def listen(self, stopped: Callable[[], bool], patience_s: float) -> bool:
        """Until the last round is over, or `stopped`; False if nothing was heard for `patience_s`."""
        heard = time.monotonic()
        while not (stopped() or self.finished):
            event, now = self._session.next(0.1), time.monotonic()
            if isinstance(event, Received):
                heard = now
                self._receive(event, now)
            if now - heard > patience_s:
                return False
        return True

    def connect(self, stopped: Callable[[], bool]) -> None:
        """Raises `BrokerError`."""
        self._session.connect(stopped, lambda _: None)

    def close(self) -> None:
        self._session.close()

    def _receive(self, received: Received, now: float) -> None:
        try:
            match parse(received.topic):
                case CurrentRound():
                    order = verify(received.payload, Round)
                    self.finished = order.state == "finished"
                    if order.phase.task == "train":
                        self._of(order.phase.round).opened.append(now)
                case DeviceManifest() as topic:
                    if verify(received.payload, Manifest).core.task == "train":
                        self._of(topic.round).announced.append(now)
                case AnswerTo():
                    answer = verify(received.payload, Answer)
                    if answer.phase.task == "train" and answer.outcome == "accepted":
                        self._of(answer.phase.round).answered.append(now)
                case ModelManifest():
                    self._of(verify(received.payload, Manifest).core.round).model.append(now)
                case ModelChunk() as topic:
                    self._of(topic.round).pushed.append(now)
        except Refused:
            pass  # not of this federation's making
        finally:
            self._session.ack(received)

    def _of(self, round_: int) -> Seen:
        return self.rounds.setdefault(round_, Seen())
