"""Chunks on their way out, paced: never more in flight than the session's window, one transfer after the other's turn.

Asked twice for the same chunk before it has gone, it goes once: a million wants are answered by one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from floe.parcel import Parcel
from floe.session import WINDOW
from floe.topics import Topic


class Connection(Protocol):
    """What a pump must know of a session: whether it is up, and how many messages are in flight."""

    connected: bool
    outstanding: int


class Outlet(Protocol):
    """Where chunks go out: a `floe.wire.Wire`, or one of the many links of the benchmark."""

    @property
    def session(self) -> Connection: ...

    def send_bytes(self, topic: Topic, payload: bytes) -> None: ...


@dataclass
class _Job:
    parcel: Parcel
    topic_of: Callable[[int], Topic]
    pending: dict[int, None] = field(default_factory=dict)


class Pump:
    """Serves chunks of parcels over one outlet."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._jobs: dict[Hashable, _Job] = {}

    def add(self, key: Hashable, parcel: Parcel, indices: Iterable[int], topic_of: Callable[[int], Topic]) -> None:
        """Send these chunks to the topics that `topic_of` gives; a job with the same key grows."""
        job = self._jobs.setdefault(key, _Job(parcel, topic_of))
        if job.parcel.name != parcel.name:
            job = self._jobs[key] = _Job(parcel, topic_of)
        job.pending.update(dict.fromkeys(indices))

    def drop(self, key: Hashable) -> None:
        """Forget what is still to be sent."""
        self._jobs.pop(key, None)

    def run(self) -> None:
        """Publish as much as there is room for."""
        session = self._outlet.session
        while self._jobs and session.connected and session.outstanding < WINDOW:
            key = next(iter(self._jobs))
            job = self._jobs.pop(key)
            index = next(iter(job.pending), None)
            if index is None:
                continue
            del job.pending[index]
            try:
                chunk = job.parcel.chunk(index)
            except OSError:  # forgotten meanwhile, for a newer model or its answer; whoever lacks something asks again
                continue
            self._outlet.send_bytes(job.topic_of(index), chunk)
            if job.pending:
                self._jobs[key] = job
