"""Everything that can be done with jobs, bound to one set of settings: `Darkroom`. `jobs.api` documents it for users."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal, Self

from . import logs, queue, schedule, transitions
from .errors import IdempotencyConflict, JobNotFound
from .images import ArtifactStorage
from .job import Job, OnUnknown
from .listing import Page, checked_filter, list_page
from .new_job import NewJob, make_jobs
from .report import Report
from .request import JsonValue, Request
from .settings import Settings
from .settings import current as current_settings
from .state.repository import Change, Existing, Repository, Transition
from .storage import Storage, open_storage
from .values import replace

#: how long another worker may take to find the images of an answer that a dead one had begun to store, in seconds
_RESCUE_SECONDS = 30.0


@dataclass(frozen=True)
class Darkroom:
    """Enqueues and changes jobs. Thread-safe."""

    settings: Settings
    #: the jobs in Redis
    repository: Repository
    #: the images
    storage: Storage
    #: wakes workers
    dispatch: queue.Dispatch

    @classmethod
    def open(cls, settings: Settings, *, patience_seconds: float = 0.0) -> Self:
        """The Darkroom of these settings; Redis, broker and storage are connected when they are first used.

        Calls wait up to `patience_seconds` for a Redis that is away.
        """
        repository = Repository.open(
            settings.redis_url,
            retention_seconds=settings.retention_seconds,
            patience_seconds=patience_seconds,
            replicas=settings.redis_wait_replicas,
        )
        storage = open_storage(
            settings.storage_url,
            public_url=settings.public_url or None,
            secret_keys=[key.get_secret_value() for key in settings.secret_keys],
        )
        dispatch = queue.Dispatch(queue.application(settings), settings.broker_is_redis)
        return cls(settings, repository, storage, dispatch)

    def close(self) -> None:
        """Wake all waiters, and close the connections to Redis, the broker and the storage."""
        self.repository.close()
        self.dispatch.app.close()
        self.storage.close()

    def enqueue(
        self,
        request: Request,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        deadline_seconds: float | None = None,
        on_unknown: OnUnknown | Literal["fail", "charge_again"] = OnUnknown.FAIL,
        keep_late: bool = False,
        webhook_url: str | None = None,
        webhook_events: Iterable[str] | None = None,
        owner: str = "",
        fingerprint: str = "",
    ) -> Job:
        """Enqueue one request; see `jobs.enqueue`.

        `owner` is the name of the API key that enqueues. `fingerprint` covers what else must be the same, besides the
        request, when an idempotency key is used again.
        """
        new = NewJob(request, metadata, deadline_seconds, on_unknown, keep_late, webhook_url, webhook_events)
        [job] = self._make({"": new}, idempotency_key, owner)
        digest = _digest(fingerprint, job) if idempotency_key else ""
        made = self.repository.create(
            job, message=self.dispatch.message(job), idempotency_key=idempotency_key or "", request_digest=digest
        )
        if isinstance(made, Existing):
            return self.get(_same(made, idempotency_key or "", digest)[0])
        self.dispatch.publish(job)
        return self.bound(job)

    def enqueue_many(
        self, new_jobs: Sequence[NewJob], *, idempotency_key: str | None = None, owner: str = "", fingerprint: str = ""
    ) -> tuple[Job, ...]:
        """Enqueue all of these requests or none; see `jobs.enqueue_many`, and `enqueue` for the other arguments."""
        new_jobs = tuple(new_jobs)
        if not new_jobs:
            return ()
        jobs = self._make({str(index): new for index, new in enumerate(new_jobs)}, idempotency_key, owner)
        now = jobs[0].created_at
        # A millisecond apart, so that lists keep their order.
        jobs = [replace(job, created_at=now - timedelta(milliseconds=i)) for i, job in enumerate(reversed(jobs))][::-1]
        digest = _digest(fingerprint, *jobs) if idempotency_key else ""
        made = self.repository.create_many(
            [(job, self.dispatch.message(job)) for job in jobs],
            idempotency_key=idempotency_key or "",
            request_digest=digest,
        )
        if isinstance(made, Existing):
            found = self.repository.get_many(_same(made, idempotency_key or "", digest))
            return tuple(self.bound(job) for job in found.values() if job)
        # When the broker is away, it is asked once, not for each of a thousand jobs.
        all(self.dispatch.publish(job) for job in jobs)
        return tuple(jobs)

    def _make(self, new_jobs: Mapping[str, NewJob], idempotency_key: str | None, owner: str) -> list[Job]:
        return make_jobs(
            new_jobs,
            self.settings,
            self.storage,
            self.repository.now,
            idempotency_key=idempotency_key,
            owner=owner,
        )

    def get(self, job_id: str) -> Job:
        """Get the job; see `jobs.get`."""
        job = self.repository.get(_checked_id(job_id))
        grace = timedelta(seconds=_RESCUE_SECONDS if job.attempt and job.attempt.inline and job.holder else 0)
        if schedule.is_overdue(job, self.repository.now() - grace):
            # No worker is running that would see the deadline.
            change = self.repository.update(job.id, transitions.expired, known=job)
            logs.change(change.before, change.after)
            job = change.after
        return self.bound(job)

    def list(
        self,
        status: str | Iterable[str] | None = None,
        *,
        operation: str | None = None,
        code: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        created_after: datetime | None = None,
        unknown: bool = False,
        owner: str = "",
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """List jobs, newest first; see `jobs.list`. With an `owner`, only the jobs of the API key of this name."""
        wanted = checked_filter(
            status=status,
            operation=operation,
            code=code,
            metadata=metadata,
            created_after=created_after,
            unknown=unknown,
            owner=owner,
            limit=limit,
            cursor=cursor,
        )
        page = list_page(self.repository, wanted)
        return replace(page, jobs=tuple(map(self.bound, page.jobs)))

    def watch(self, job_id: str, timeout: float | None = None) -> Iterator[Job]:
        """Yield the job now and at each change, until it is final; see `jobs.watch`."""
        give_up_at = math.inf if timeout is None else time.monotonic() + timeout
        seen = ""
        with self.repository.changes.listen(_checked_id(job_id)) as waiter:
            while True:
                job = self.get(job_id)
                if job.version != seen:
                    seen = job.version
                    yield job
                if job.status.is_final:
                    return
                left = give_up_at - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"job {job_id} is still {job.status} after {timeout:g} s; it goes on")
                waiter.wait(left)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until the job is final; see `jobs.wait`."""
        *_, job = self.watch(job_id, timeout)
        return job

    def cancel(self, job_id: str) -> Job:
        """Cancel the job; see `jobs.cancel`."""
        return self.bound(self.advance(_checked_id(job_id), transitions.canceled).after)

    def retry(self, job_id: str, *, may_charge_again: bool = False) -> Job:
        """Retry the job; see `jobs.retry`."""
        change = self.advance(
            _checked_id(job_id), lambda job, now: transitions.retried(job, now, may_charge_again=may_charge_again)
        )
        return self.bound(change.after)

    def redeliver(self, job_id: str, delivery_id: str | None = None) -> Job:
        """Send webhooks of the job again; see `jobs.redeliver`."""
        return self.bound(
            self.advance(_checked_id(job_id), lambda job, now: transitions.redelivered(job, delivery_id, now)).after
        )

    def bound(self, job: Job) -> Job:
        """The job, its artifacts bound to the storage, so that they can be read."""
        if not job.artifacts:
            return job
        storage = ArtifactStorage(self.storage.url, self.storage.get)
        return replace(job, artifacts=tuple(replace(item, storage=storage) for item in job.artifacts))

    def advance(self, job_id: str, change: Transition, *, known: Job | None = None) -> Change:
        """Change a job, and wake a worker where the changed job needs one, in one step.

        `known` saves reading the record. Raises JobNotFound, and what `change` raises.
        """
        done = self.repository.update(job_id, change, known=known, message=self.dispatch.message)
        if done.applied:
            self.dispatch.publish(done.after)
        logs.change(done.before, done.after)
        return done

    def report(self, job_id: str, number: int, report: Report, *, known: Job | None = None) -> Change:
        """Change a job by the report of a callback about attempt `number`."""
        return self.advance(job_id, lambda job, now: transitions.reported(job, number, report, now), known=known)


def _checked_id(job_id: str) -> str:
    if not isinstance(job_id, str) or len(job_id) != 32 or not job_id.isalnum():
        raise JobNotFound(str(job_id))
    return job_id


def _digest(fingerprint: str, *jobs: Job) -> str:
    wanted = [[job.operation, job.params] for job in jobs]
    text = json.dumps([fingerprint, *wanted], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _same(existing: Existing, idempotency_key: str, digest: str) -> Sequence[str]:
    """The ids of the jobs that this request has created before. Raises IdempotencyConflict for another request."""
    if existing.request_digest != digest:
        raise IdempotencyConflict(idempotency_key, existing.job_ids[0])
    return existing.job_ids


@lru_cache(maxsize=8)
def _open(settings: Settings) -> Darkroom:
    return Darkroom.open(settings, patience_seconds=2.0)


def current() -> Darkroom:
    """The Darkroom of the environment, as it is now."""
    return _open(current_settings())
