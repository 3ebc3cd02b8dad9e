"""What is watched: vitals and log lines of the devices, the aggregator's own, where the rounds stand, the broker.

For people alone: no round waits for any of it, and nothing is decided by it. It is collected, and written at most once
a second, in portions; what the disk refuses is lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from aggregator.figures import Figures
from aggregator.intake import check_telemetry
from aggregator.kept import Kept
from aggregator.log import Log
from aggregator.phases import Policy
from aggregator.pins import Speakers
from aggregator.standing import deadline_of, standing_of
from aggregator.states import State
from aggregator.uploads import Upload
from aggregator.waiting import Heard, Waiting
from floe.errors import Refused
from floe.keyring import Keyring, open_meta
from floe.messages import Manifest
from floe.store import now
from floe.telemetry import Telemetry
from floe.topics import DeviceTelemetry
from floe.vitals import Sampler

FLUSH_S = 1.0  # nothing is written more often
BEAT_S = 10.0  # the standing is written so often at least, the broker's figures at most
OWN_S = 60.0  # between two samples of the aggregator itself


class Monitor:
    """One lineage, watched. `state` gives the rounds', `uploads` what is being received, `model` the newest's hash,
    `plan` that of the next phase (JSON).
    """

    def __init__(
        self, log: Log, speakers: Speakers, keyring: Keyring, policy: Policy, sampler: Sampler, *,
        state: Callable[[], State], uploads: Callable[[], list[Upload]], model: Callable[[], str | None],
        plan: Callable[[], str],
    ) -> None:  # fmt: skip
        self._log = log
        self._speakers = speakers
        self._keyring = keyring
        self._policy = policy
        self._sampler = sampler
        self._state = state
        self._uploads = uploads
        self._model = model
        self._plan = plan
        self.figures = Figures()
        self._heard = Waiting()
        self._kept = Kept(log.db)
        self._stands: dict[str, object] = {}  # as it is written
        self._stood: tuple[dict[str, object], str] = ({}, "")  # as it is, and since when
        self._shown: list[tuple[object, ...]] | None = None  # of uploads; None: what a process before us has left
        self._flush_at = self._beat_at = self._own_at = 0.0

    def hear(self, topic: DeviceTelemetry, manifest: Manifest) -> None:
        """Telemetry of a device; its signature has been verified. Raises `Refused`, `sqlite3.Error`."""
        self._speakers.check_key(manifest)
        check_telemetry(manifest, topic, self._state().phase.epoch)
        device, size = manifest.sender, len(manifest.core.meta)
        newest = self._heard.newest(device, manifest.key)
        if manifest.seq <= (self._newest(device) if newest is None else newest):
            raise Refused("duplicate", "telemetry that was seen before, or is older than that")
        if not self._heard.has_room(device, size):
            self._log.refused(device, "flood")
            return
        told = open_meta(self._keyring.open(manifest.core, manifest.envelope), manifest.core, Telemetry)
        self._heard.add(Heard(device, manifest.key, manifest.seq, now(), told, size))

    def tick(self, moment: float) -> None:
        """Write what is due. Never raises: a full disk must not harm the rounds."""
        if moment < self._flush_at:
            return
        self._flush_at = moment + FLUSH_S
        state, uploads = self._state(), [_row_of(upload) for upload in self._uploads()]
        stands = standing_of(state, self._policy) | {"plan": self._plan()}
        if stands != self._stood[0]:
            self._stood = stands, now()
        if not (moment >= self._beat_at or self._heard or stands != self._stands or uploads != self._shown):
            return
        try:
            self._write_down(state, stands, uploads, moment)
        except sqlite3.Error as error:
            self._log.complain(f"{self._log.path}: {error}; what is watched is not in the log")
            self._kept = Kept(self._log.db)

    def _write_down(
        self, state: State, stands: dict[str, object], uploads: list[tuple[object, ...]], moment: float
    ) -> None:
        """A portion of the reports and all else, in one transaction. Raises `sqlite3.Error`."""
        heard = self._heard.take()
        beats, samples = moment >= self._beat_at, moment >= self._own_at
        with self._log.db.atomic():
            self._kept.add(heard)
            if samples:
                own = self._sampler.sample(model_sha256=self._model())
                self._kept.sample([(f"lineage/{state.phase.lineage}", now(), own)])
            times = {"deadline_at": deadline_of(state, moment), "changed_at": self._stood[1], "seen_at": now()}
            self._write_standing(stands | times)
            if uploads != self._shown:
                self._write_uploads(uploads)
            if beats:
                self._write_figures()
        self._stands, self._shown = stands, uploads
        if samples:
            self._own_at = moment + OWN_S
        if beats:
            self._beat_at = moment + BEAT_S
            self.figures.changed.clear()

    def _write_standing(self, row: dict[str, object]) -> None:
        columns, places = ", ".join(row), ", ".join("?" * len(row))
        sql = f"INSERT OR REPLACE INTO standing ({columns}) VALUES ({places})"  # noqa: S608 (names of ours)
        self._log.db.execute(sql, tuple(row.values()))

    def _write_uploads(self, uploads: list[tuple[object, ...]]) -> None:
        self._log.db.execute("DELETE FROM uploads")
        for row in uploads:
            self._log.db.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)", row)

    def _write_figures(self) -> None:
        for topic, value in self.figures.changed.items():
            self._log.db.execute("INSERT OR REPLACE INTO broker VALUES (?, ?, ?)", (topic, value, now()))

    def _newest(self, device: str) -> int:
        row = self._log.db.execute("SELECT telemetry_seq FROM devices WHERE device = ?", [device]).fetchone()
        return int(row[0]) if row else 0


def _row_of(upload: Upload) -> tuple[object, ...]:
    have, of = len(upload.incoming.assembly.have), len(upload.incoming.core.chunks)
    return (upload.device, upload.phase.round, upload.phase.task, have, of, upload.since)
