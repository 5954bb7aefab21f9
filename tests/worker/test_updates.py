"""Changes that are written in a batch: each has its own result, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from jobs import transitions
from jobs.errors import JobNotFound, RedisUnavailable
from jobs.job import Job, Status
from jobs.state.repository import Change, Repository, Update
from worker.updates import Updates

US = "worker-a"


class Counted(Repository):
    """A real repository that counts the changes of each batch."""

    batches: list[int]

    def update_all(self, updates: Sequence[Update]) -> Sequence[Change | Exception]:
        self.batches.append(len(updates))
        return super().update_all(updates)


@pytest.fixture
def repository(redis: Redis) -> Counted:
    counted = Counted(redis, retention_seconds=3600)
    counted.batches = []
    return counted


def new(repository: Repository) -> Job:
    now = repository.now()
    job = Job(
        id=uuid.uuid4().hex,
        operation="vendor.paint",
        params={},
        status=Status.QUEUED,
        created_at=now,
        updated_at=now,
        deadline_at=now + timedelta(seconds=600),
        deadline_seconds=600,
        images_expected=1,
        wake_at=now,
    )
    repository.create(job)
    return repository.get(job.id)


def claimed(job: Job, now: datetime) -> Job:
    return transitions.claimed(job, US, now)


def refused(_job: Job, _now: datetime) -> Job:
    raise ValueError("this change is wrong")


def noted(word: str) -> Callable[[Job, datetime], Job]:
    return lambda job, now: transitions.noted(job, word, now)


def together(repository: Repository, work: Callable[[Updates], Coroutine[Any, Any, Any]]) -> Any:
    """What `work` returns, on an event loop whose blocking calls run on a thread."""

    async def main() -> Any:
        def blocking(call: Callable[[], Any]) -> Awaitable[Any]:
            return asyncio.get_running_loop().run_in_executor(None, call)

        return await work(Updates(repository, blocking))

    return asyncio.run(main())


def test_changes_during_a_batch_are_written_as_the_next_batch(repository: Counted) -> None:
    jobs = [new(repository) for _ in range(40)]

    async def work(updates: Updates) -> Sequence[Change]:
        first = asyncio.create_task(updates.update(jobs[0].id, claimed))
        for _ in range(3):
            await asyncio.sleep(0)
        others = [updates.update(job.id, claimed, known=job) for job in jobs[1:]]
        return await asyncio.gather(first, *others)

    changes = together(repository, work)
    assert repository.batches == [1, 39]
    assert [change.after.holder for change in changes] == [US] * 40
    assert [repository.get(job.id).holder for job in jobs] == [US] * 40


def test_one_that_fails_leaves_the_others_alone(repository: Counted) -> None:
    job, forgotten = new(repository), "0" * 32

    async def work(updates: Updates) -> Sequence[Change | BaseException]:
        wanted = [updates.update(forgotten, claimed), updates.update(job.id, refused), updates.update(job.id, claimed)]
        return await asyncio.gather(*wanted, return_exceptions=True)

    lost, wrong, made = together(repository, work)
    assert isinstance(lost, JobNotFound)
    assert isinstance(wrong, ValueError)
    assert isinstance(made, Change)
    assert made.applied
    assert repository.get(job.id).holder == US


def test_two_changes_of_one_job_are_both_made(repository: Counted) -> None:
    job = new(repository)

    async def work(updates: Updates) -> None:
        words = [updates.update(job.id, noted(f"word {number}"), known=job) for number in range(5)]
        await asyncio.gather(*words)

    together(repository, work)
    assert {event.what for event in repository.get(job.id).timeline} == {f"word {number}" for number in range(5)}


def test_a_job_that_was_deleted_under_a_known_record_is_not_found(repository: Counted, redis: Redis) -> None:
    job = new(repository)
    redis.delete(f"darkroom:job:{job.id}")

    async def work(updates: Updates) -> Change:
        return await updates.update(job.id, claimed, known=job)

    with pytest.raises(JobNotFound):
        together(repository, work)


def test_without_redis_every_change_raises(free_port: int) -> None:
    with Redis(port=free_port) as nobody:
        repository = Repository(nobody, retention_seconds=3600)

        async def work(updates: Updates) -> Sequence[Change | BaseException]:
            wanted = [updates.update(uuid.uuid4().hex, claimed) for _ in range(3)]
            return await asyncio.gather(*wanted, return_exceptions=True)

        ends = together(repository, work)
    assert [type(end) for end in ends] == [RedisUnavailable] * 3
