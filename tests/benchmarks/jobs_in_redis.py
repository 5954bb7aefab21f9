"""Jobs that wait for a provider, written to Redis without a worker or a provider."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from redis import Redis

from jobs import transitions
from jobs.attempt import Recovery
from jobs.job import Event, Job, Status
from jobs.providers import deepmode, operation
from jobs.report import Running
from jobs.state.repository import Repository

HOLDER = "0123456789abcdef"


def park(url: str, count: int, *, due_in_seconds: float = 900.0) -> Sequence[str]:
    """Write so many `running` jobs, as enqueue, claim, submit and answer would leave them; returns their ids."""
    repository = Repository.open(url, retention_seconds=604_800)
    now = repository.now()
    ids = [uuid.uuid4().hex for _ in range(count)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda job_id: repository.create(running(job_id, now, due_in_seconds)), ids))
    with Redis.from_url(url) as redis:
        redis.delete("darkroom:lane:deepmode")  # a running job is in no lane
    return ids


def running(job_id: str, now: datetime, due_in_seconds: float) -> Job:
    """A job that its provider has acknowledged and will report by a callback."""
    request = deepmode.Generate(
        model_id="b8a9f7e5d1c3a2f91e3d5", prompt="A beautiful landscape with mountains and a river.", ratio="square"
    )
    queued = Job(
        id=job_id,
        operation=request.operation,
        params=request.params(),
        status=Status.QUEUED,
        created_at=now,
        updated_at=now,
        deadline_at=now + timedelta(seconds=due_in_seconds),
        deadline_seconds=due_in_seconds,
        images_expected=1,
        wake_at=now,
        timeline=(Event(now, "queued"),),
    )
    price = operation(request.operation).price(request)
    # As long as each step takes: times that are all the same would be compressed to nothing.
    sent_at, answered_at = now + timedelta(microseconds=4713), now + timedelta(microseconds=391_862)
    held = transitions.claimed(queued, HOLDER, sent_at)
    sent = transitions.submitting(held, HOLDER, sent_at, recovery=Recovery.CALLBACK, expected_cost=price)
    return transitions.reported(sent, 1, Running("5b2c8f0e6a714d39"), answered_at)
