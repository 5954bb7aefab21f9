"""How long the jobs of a killed worker wait until they are released."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from jobs.darkroom import Darkroom
from jobs.errors import DarkroomError
from jobs.job import Job

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Death:
    """A worker process that was killed."""

    name: str
    holder: str
    at: datetime


@dataclass(frozen=True)
class JobRecovery:
    """A job that a dead worker held, and that was released."""

    job_id: str
    holder: str
    died_at: datetime
    #: the time from the kill until the record no longer named that worker as its holder
    seconds: float


@dataclass(frozen=True)
class _Watched:
    death: Death
    since: float

    def recovery(self, job_id: str) -> JobRecovery:
        return JobRecovery(job_id, self.death.holder, self.death.at, time.monotonic() - self.since)


@dataclass
class RecoveryWatch:
    """Knows which process is which holder, and measures how long jobs of the dead ones stay held. Thread-safe.

    An attempt whose images may be in the storage already is not released before the storage can be asked: while that is away, the
    time of such a job stands still.
    """

    darkroom: Darkroom
    #: whether the storage is away
    storage_away: bool = False
    deaths: list[Death] = field(default_factory=list)
    recoveries: list[JobRecovery] = field(default_factory=list)
    _holders: dict[int, str] = field(default_factory=dict)
    _fresh: list[_Watched] = field(default_factory=list)
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start observing in a thread."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; jobs that are still held count with the time so far."""
        self._stopping.set()
        self._thread.join()
        self.recoveries += [watched.recovery(job_id) for job_id, watched in self._watched.items()]

    def record_kill(self, name: str, pid: int) -> None:
        """The worker with this process id was killed; one that Redis never knew held nothing."""
        holder = self._holders.get(pid)
        if holder is not None:
            death = Death(name, holder, datetime.now(UTC))
            self.deaths.append(death)
            self._fresh.append(_Watched(death, time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self._observe()
            except DarkroomError:
                continue  # Redis is being restarted

    def _observe(self) -> None:
        repository = self.darkroom.repository
        for holder, worker in repository.workers().items():
            self._holders[worker["pid"]] = holder
        while self._fresh:
            for job_id in repository.held(self._fresh[0].death.holder):
                self._watched[job_id] = self._fresh[0]
            self._fresh.pop(0)
        for job_id, job in repository.get_many(tuple(self._watched)).items():
            watched = self._watched[job_id]
            if job is None or job.holder != watched.death.holder:
                self.recoveries.append(self._watched.pop(job_id).recovery(job_id))
            elif self.storage_away and job.attempt is not None and job.attempt.inline:
                self._watched[job_id] = replace(watched, since=time.monotonic())


def in_flight_at_a_kill(job: Job, deaths: Sequence[Death]) -> bool:
    """Whether the worker that sent the job's last attempt was killed after that."""
    attempt = job.attempt
    return attempt is not None and any(
        death.holder == attempt.holder and death.at >= attempt.started_at for death in deaths
    )
