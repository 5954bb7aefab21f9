"""The sweep acts on each due job once, and releases jobs on which nobody works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from jobs import Job, Status, transitions
from jobs.darkroom import Darkroom
from jobs.errors import RedisUnavailable
from jobs.images import AtUrl, PendingImage
from jobs.providers import aimlapi, deepmode
from jobs.settings import Settings
from jobs.state.repository import LEASE_SECONDS, Repository
from worker.due import Sweep
from worker.limits import ConcurrencyLimit
from worker.services import ServiceThread


@pytest.fixture
def darkroom(redis_url: str, tmp_path: Any) -> Darkroom:
    """A producer."""
    return Darkroom.open(Settings(redis_url=redis_url, storage_url=f"file://{tmp_path}"))


class Seen:
    """What a sweep passed on."""

    def __init__(self) -> None:
        self.attended: list[Job] = []
        self.living: list[frozenset[str]] = []
        self.ran: list[str] = []
        self.in_progress: frozenset[str] = frozenset()

    def attend(self, job: Job, living: frozenset[str]) -> None:
        self.attended.append(job)
        self.living.append(living)


@pytest.fixture
def new_sweep(darkroom: Darkroom) -> Callable[..., tuple[Sweep, Seen]]:
    """A sweep that runs when a test says so, and what it passed on."""

    def new(holder: str = "me", room: int = 100, providers: tuple[str, ...] = ("deepmode", "aimlapi")) -> Any:
        seen = Seen()
        sweep = Sweep(
            repository=darkroom.repository,
            holder=holder,
            description={"hostname": "test", "operations": []},
            providers=providers,
            running=ConcurrencyLimit(room),
            in_progress=lambda: seen.in_progress,
            attend=seen.attend,
            run=seen.ran.append,
        )
        return sweep, seen

    return new


def enqueue(darkroom: Darkroom, **options: Any) -> Job:
    return darkroom.enqueue(deepmode.Generate(model_id="m", prompt="a lake"), **options)


def ready(darkroom: Darkroom, job: Job) -> None:
    """Make a queued job overdue, as if its message had been lost long ago."""
    darkroom.repository.update(job.id, lambda job, now: replace(job, wake_at=now - timedelta(minutes=1)))


def due(darkroom: Darkroom, job: Job) -> None:
    """Make a running job due now."""
    darkroom.repository.update(
        job.id, lambda job, now: replace(job, status=Status.RUNNING, wake_at=now - timedelta(seconds=1))
    )


def test_a_due_job_is_attended_once(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, seen = new_sweep()
    job = enqueue(darkroom)
    due(darkroom, job)
    sweep.run_once()
    sweep.run_once()
    assert [one.id for one in seen.attended] == [job.id]
    assert seen.living == [frozenset({"me"})]


def test_a_job_that_is_not_due_is_left(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, seen = new_sweep()
    enqueue(darkroom)
    sweep.run_once()
    assert (seen.attended, seen.ran) == ([], [])


def test_three_sweeps_attend_each_job_once(darkroom: Darkroom, new_sweep: Any) -> None:
    jobs = [enqueue(darkroom) for _ in range(300)]
    for job in jobs:
        due(darkroom, job)
    three = [new_sweep(name) for name in ("a", "b", "c")]
    threads = [threading.Thread(target=lambda sweep=sweep: [sweep.run_once() for _ in range(5)]) for sweep, _ in three]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    attended = [job.id for _, seen in three for job in seen.attended]
    assert sorted(attended) == sorted(job.id for job in jobs)


def test_three_sweeps_run_each_queued_job_once(darkroom: Darkroom, new_sweep: Any) -> None:
    jobs = [enqueue(darkroom) for _ in range(120)]
    for job in jobs:
        ready(darkroom, job)
    three = [new_sweep(name) for name in ("a", "b", "c")]
    threads = [threading.Thread(target=lambda sweep=sweep: [sweep.run_once() for _ in range(5)]) for sweep, _ in three]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(name for _, seen in three for name in seen.ran) == sorted(job.id for job in jobs)


def test_no_more_queued_jobs_are_taken_than_there_is_room_for(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, seen = new_sweep(room=5)
    for _ in range(20):
        ready(darkroom, enqueue(darkroom))
    sweep.run_once()
    assert len(seen.ran) == 5
    sweep.run_once()
    assert len(seen.ran) == 5
    for name in seen.ran[:2]:
        sweep.running.release(name)
    sweep.run_once()
    assert len(seen.ran) == len(set(seen.ran)) == 7


def test_jobs_of_a_provider_that_is_not_served_stay_in_their_lane(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, seen = new_sweep(providers=("aimlapi",))
    ready(darkroom, enqueue(darkroom))
    sweep.run_once()
    assert seen.ran == []


def test_a_job_that_nobody_serves_is_attended_at_its_deadline(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, seen = new_sweep(providers=("aimlapi",))
    job = enqueue(darkroom, deadline_seconds=1)
    time.sleep(1.05)
    sweep.run_once()
    assert [one.id for one in seen.attended] == [job.id]


def test_the_job_whose_image_expires_first_is_attended_first(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, seen = new_sweep()
    minutes = {enqueue(darkroom).id: minutes for minutes in (30, 10, 20)}
    for job_id, left in minutes.items():
        darkroom.repository.update(job_id, lambda job, now, left=left: _storing(job, now, left))
    due(darkroom, enqueue(darkroom))
    sweep.run_once()
    assert [minutes.get(job.id) for job in seen.attended] == [10, 20, 30, None]


def _storing(job: Job, now: Any, minutes: int) -> Job:
    image = PendingImage(0, 1, AtUrl("https://example.com/x", expires_at=now + timedelta(minutes=minutes)))
    return replace(job, status=Status.STORING, wake_at=now - timedelta(seconds=1), pending=(image,))


def test_jobs_held_by_a_dead_worker_are_attended_by_another_once(
    darkroom: Darkroom, new_sweep: Any, redis: Any
) -> None:
    mine, seen = new_sweep("me")
    dead, _ = new_sweep("dead")
    dead.run_once()
    jobs = [enqueue(darkroom) for _ in range(3)]
    for job in jobs:
        darkroom.repository.update(job.id, lambda job, now: transitions.claimed(job, "dead", now))
    mine.run_once()
    assert seen.attended == []
    redis.zincrby("darkroom:holders", -1000 * (LEASE_SECONDS + 1), "dead")
    mine.run_once()
    mine.run_once()
    assert sorted(job.id for job in seen.attended) == sorted(job.id for job in jobs)
    assert seen.living == [frozenset({"me"})] * 3
    assert list(darkroom.repository.workers()) == ["me"]


def test_a_job_that_we_hold_and_nobody_works_on_is_released(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, seen = new_sweep()
    idle, busy = enqueue(darkroom), enqueue(darkroom)
    for job in (idle, busy):
        darkroom.repository.update(job.id, lambda job, now: transitions.claimed(job, "me", now))
    seen.in_progress = frozenset({busy.id})
    for _ in range(2):
        assert darkroom.get(idle.id).holder == "me"
        sweep.reconcile()
    assert darkroom.get(idle.id).holder is None
    assert darkroom.get(busy.id).holder == "me"


def test_a_job_that_was_claimed_between_two_comparisons_is_not_released(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, _ = new_sweep()
    job = enqueue(darkroom)
    sweep.reconcile()
    darkroom.repository.update(job.id, lambda job, now: transitions.claimed(job, "me", now))
    sweep.reconcile()
    assert darkroom.get(job.id).holder == "me"


def test_an_id_whose_record_is_gone_is_forgotten(darkroom: Darkroom, new_sweep: Any, redis: Any) -> None:
    sweep, seen = new_sweep()
    job = enqueue(darkroom)
    due(darkroom, job)
    redis.delete(f"darkroom:job:{job.id}")
    sweep.run_once()
    assert seen.attended == []
    assert redis.zscore("darkroom:due", job.id) is None


def test_a_draining_sweep_claims_nothing_and_keeps_its_lease(darkroom: Darkroom, new_sweep: Any, redis: Any) -> None:
    sweep, seen = new_sweep()
    due(darkroom, enqueue(darkroom))
    ready(darkroom, enqueue(darkroom))
    sweep.drain()
    before = redis.zscore("darkroom:holders", "me")
    assert sweep.run_once() is False
    assert (seen.attended, seen.ran) == ([], [])
    assert redis.zscore("darkroom:holders", "me") > (before or 0)


def test_a_sweep_in_its_thread_runs_queued_jobs(darkroom: Darkroom, new_sweep: Any, png: bytes) -> None:
    sweep, seen = new_sweep()
    job = darkroom.enqueue(aimlapi.ReveRemix(image_urls=[png], prompt="x"))
    ready(darkroom, job)
    thread = ServiceThread(sweep)
    thread.start()
    give_up_at = time.monotonic() + 10
    while not seen.ran and time.monotonic() < give_up_at:
        time.sleep(0.02)
    thread.stop()
    assert seen.ran == [job.id]


def test_a_registered_worker_is_known_before_its_first_run(darkroom: Darkroom, new_sweep: Any) -> None:
    sweep, _ = new_sweep()
    sweep.register()
    assert "me" in darkroom.repository.workers()


def test_a_sweep_says_whether_redis_answers(free_port: int, new_sweep: Any) -> None:
    sweep, _ = new_sweep()
    sweep.run_once()
    assert sweep.redis_answers
    with Redis(port=free_port) as nobody:
        sweep.repository = Repository(nobody, retention_seconds=60)
        with pytest.raises(RedisUnavailable):
            sweep.run_once()
    assert not sweep.redis_answers
