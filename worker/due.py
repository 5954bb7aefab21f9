"""The sweep: inside every worker, it acts on due jobs a few times a second.

Each run renews the worker's lease, passes on jobs held by dead workers, and claims queued jobs from the lanes for which this process
has room. A message that waits in a long backlog looks like one that was lost; so the sweep sends no message for an overdue job, but
runs it here, and a message that comes later finds nothing to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobs import transitions
from jobs.errors import Unavailable
from jobs.job import Job
from jobs.state.repository import LEASE_SECONDS, Repository

from .limits import ConcurrencyLimit

log = logging.getLogger(__name__)

#: between two runs, in seconds
INTERVAL_SECONDS = 0.5
#: the most due jobs of one run, and the most queued jobs that one run claims in a lane
BATCH = 500
#: between two comparisons of the jobs that we hold with those that we work on, in seconds
RECONCILE_SECONDS = 5.0

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass
class Lease:
    """This process's lease, as far as it knows itself: it counts the seconds since its latest renewal."""

    _renewed_at: float = float("-inf")

    @property
    def held(self) -> bool:
        """Whether the lease was renewed in time, so that no other worker can consider this one dead."""
        return time.monotonic() - self._renewed_at < LEASE_SECONDS

    @contextmanager
    def renewal(self) -> Iterator[None]:
        """Renew the lease as of the start of the block, unless the block raises."""
        started_at = time.monotonic()
        yield
        self._renewed_at = started_at


@dataclass
class Sweep:
    """Acts on due jobs for one process."""

    repository: Repository
    holder: str
    #: what other processes may know of this worker
    description: Mapping[str, Any]
    #: the providers whose lanes this worker serves
    providers: Collection[str]
    running: ConcurrencyLimit
    #: the jobs that this process works on
    in_progress: Callable[[], frozenset[str]]
    #: acts on a due job, given the holders that are alive
    attend: Callable[[Job, frozenset[str]], None]
    #: runs a queued job that has a slot
    run: Callable[[str], None]
    lease: Lease = field(default_factory=Lease)
    name: str = "sweep"
    interval_seconds: float = INTERVAL_SECONDS
    #: whether Redis answered the latest run
    redis_answers: bool = True
    _draining: threading.Event = field(default_factory=threading.Event)
    _reconciled_at: float = 0.0
    _unaccounted: frozenset[str] = frozenset()

    def register(self) -> None:
        """Make this worker known before it claims anything."""
        with self.lease.renewal():
            self.repository.tick(self.holder, self.description, 0)

    def drain(self) -> None:
        """Claim nothing more, but keep the lease, while the process finishes what is in progress."""
        self._draining.set()

    def run_once(self) -> bool:
        """Act on what is due, and return whether there may be more."""
        batch = 0 if self._draining.is_set() else BATCH
        try:
            with self.lease.renewal():
                tick = self.repository.tick(self.holder, self.description, batch)
        except Unavailable:
            self.redis_answers = False
            raise
        self.redis_answers = True
        if not batch:
            return False
        found = self.repository.get_many(tick.due)
        for job_id in [job_id for job_id, job in found.items() if job is None]:
            self.repository.remove_due(job_id)

        def first_expiry(job: Job) -> datetime:
            return min((image.expires_at for image in job.pending if image.expires_at), default=_NEVER)

        for job in sorted((job for job in found.values() if job is not None), key=first_expiry):
            self.attend(job, tick.living)
        claimed = sum(self._claim(provider) for provider in self.providers)
        if time.monotonic() - self._reconciled_at >= RECONCILE_SECONDS:
            self._reconciled_at = time.monotonic()
            self.reconcile()
        return len(tick.due) == BATCH or claimed >= BATCH

    def _claim(self, provider: str) -> int:
        """Run as many queued jobs of the lane as there is room for, and return their number."""
        room = min(self.running.room, BATCH)
        if room <= 0:
            return 0
        claimed = self.repository.take_from_lane(provider, room)
        for job_id in claimed:
            if self.running.acquire(job_id, wait=False):
                self.run(job_id)
        return len(claimed)

    def reconcile(self) -> None:
        """Release jobs that the record says we hold and nobody here works on, such as after a write whose answer was lost."""
        idle = frozenset(self.repository.held(self.holder)) - self.in_progress()
        for job_id in idle & self._unaccounted:
            log.warning("job %s: released, since this worker holds it and does not work on it", job_id)
            self.repository.update(job_id, lambda job, now: transitions.outcome_lost(job, self.holder, now))
        self._unaccounted = idle - self._unaccounted
