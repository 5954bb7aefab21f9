"""When a job needs attention: pure questions about a job and the time."""

from __future__ import annotations

from datetime import datetime

from .delivery import Delivery
from .job import WAITING, Job, Status


def due_at(job: Job) -> datetime | None:
    """When the sweep must look at the job; None: never.

    The wake-up of a queued job is in its provider's lane instead, and a job that a worker holds needs none.
    """
    times = [job.deadline_at] if job.status in WAITING else []
    if job.wake_at is not None and job.holder is None and job.status is not Status.QUEUED:
        times.append(job.wake_at)
    times += [delivery.next_at for delivery in job.deliveries if delivery.next_at is not None]
    return min(times, default=None)


def lane_at(job: Job) -> datetime | None:
    """When the job may be taken from its provider's lane; None: it is not in the lane."""
    return job.wake_at if job.status is Status.QUEUED and job.holder is None else None


def is_overdue(job: Job, now: datetime) -> bool:
    """Whether the job still waits for its provider after its deadline."""
    return job.status in WAITING and now >= job.deadline_at


def is_poll_due(job: Job, now: datetime) -> bool:
    """Whether it is time to ask the provider for the current attempt."""
    can_poll = job.attempt is not None and job.attempt.can_poll and job.attempt.is_open
    return can_poll and job.status is Status.RUNNING and job.wake_at is not None and job.wake_at <= now


def due_deliveries(job: Job, now: datetime) -> tuple[Delivery, ...]:
    """The deliveries that should be tried now."""
    return tuple(delivery for delivery in job.deliveries if delivery.is_due(now))


def is_complete(job: Job) -> bool:
    """Whether nothing is left to do: final, each image stored or missing, each delivery ended. Its retention begins."""
    return job.status.is_final and not job.pending and not any(delivery.is_open for delivery in job.deliveries)
