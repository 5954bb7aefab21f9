"""The sweep: acts on what is due. It runs inside every worker; a few times a second it renews the worker's lease, hands on what
dead workers held, and takes as many jobs from the lines as there is room for.

The sweep cannot tell a message that waits in a long backlog from one that was lost. So it sends none: it claims overdue jobs
itself, and a message that comes later finds nothing to do.
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

#: between two looks
INTERVAL_SECONDS = 0.5
#: due jobs taken at one look
BATCH = 500
#: between two comparisons of what we hold with what we have in hand
RECONCILE_SECONDS = 5.0

_FAR = datetime.max.replace(tzinfo=UTC)


@dataclass
class Lease:
    """What this process knows of its own lease: from the moment of its last renewal it counts the seconds itself."""

    _renewed_at: float = float("-inf")

    @property
    def held(self) -> bool:
        """Whether it was renewed in time, so that nobody can take this process for dead."""
        return time.monotonic() - self._renewed_at < LEASE_SECONDS

    @contextmanager
    def renewal(self) -> Iterator[None]:
        """Renewed as of the beginning, if the end is reached."""
        asked_at = time.monotonic()
        yield
        self._renewed_at = asked_at


@dataclass
class Sweep:
    """One thread that looks at what is due, until it is stopped."""

    repository: Repository
    holder: str
    description: Mapping[str, Any]
    providers: Collection[str]
    slots: ConcurrencyLimit
    #: the jobs that this process has in hand, by a slot or by the sweep
    in_hand: Callable[[], frozenset[str]]
    #: looks at a due job; the set names the workers that live
    attend: Callable[[Job, frozenset[str]], None]
    #: runs a queued job that has a slot
    run: Callable[[str], None]
    lease: Lease = field(default_factory=Lease)
    #: after each look: whether Redis answered
    looked: Callable[[bool], None] = lambda _: None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _resting: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _reconciled_at: float = 0.0
    _unaccounted: frozenset[str] = frozenset()

    def start(self) -> None:
        """Registers the worker before it claims anything, and goes on in a thread."""
        with self.lease.renewal():
            self.repository.tick(self.holder, self.description, 0)
        self._thread = threading.Thread(target=self._go_on, name="sweep", daemon=True)
        self._thread.start()

    def rest(self) -> None:
        """Takes nothing new, but keeps the lease: the process is finishing what it has in hand."""
        self._resting.set()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _go_on(self) -> None:
        while not self._stopping.is_set():
            busy = self._looked()
            self._stopping.wait(0.0 if busy else INTERVAL_SECONDS)

    def _looked(self) -> bool:
        """One look that survives everything."""
        busy = False
        try:
            busy = self.look()
            self.looked(True)
        except Unavailable as error:
            log.warning("sweep: %s", error)
            self.looked(False)
        except Exception:
            log.exception("sweep")
        return busy

    def look(self) -> bool:
        """One look; says whether there may be more to do at once."""
        batch = 0 if self._resting.is_set() else BATCH
        with self.lease.renewal():
            tick = self.repository.tick(self.holder, self.description, batch)
        if not batch:
            return False
        self._attend(tick.due, tick.living)
        taken = sum(self._take(provider) for provider in self.providers)
        self._reconcile()
        return len(tick.due) == BATCH or taken >= BATCH

    def _attend(self, due: tuple[str, ...], living: frozenset[str]) -> None:
        found = self.repository.get_many(due)
        for job_id, job in found.items():
            if job is None:
                self.repository.forget(job_id)
        for job in sorted((job for job in found.values() if job is not None), key=_dies_at):
            self.attend(job, living)

    def _take(self, provider: str) -> int:
        room = min(self.slots.room, BATCH)
        if room <= 0:
            return 0
        taken = self.repository.take(provider, room)
        for job_id in taken:
            if self.slots.take(job_id, wait=False):
                self.run(job_id)
        return len(taken)

    def _reconcile(self) -> None:
        """Gives back what the record says we hold and nobody here works on: a write whose answer was lost, say."""
        if time.monotonic() - self._reconciled_at < RECONCILE_SECONDS:
            return
        self._reconciled_at = time.monotonic()
        idle = frozenset(self.repository.held(self.holder)) - self.in_hand()
        for job_id in idle & self._unaccounted:
            log.warning("job %s: held by us, but nobody works on it", job_id)
            self.repository.update(job_id, lambda job, now: transitions.outcome_lost(job, self.holder, now))
        self._unaccounted = idle - self._unaccounted


def _dies_at(job: Job) -> datetime:
    """What expires first is fetched first."""
    return min((image.expires_at for image in job.pending if image.expires_at), default=_FAR)
