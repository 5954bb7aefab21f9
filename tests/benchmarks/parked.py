"""What a waiting job costs: bytes of Redis for each of 100,000 `running` jobs, and one sweep with 1,000 due jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis import Redis

from jobs.job import Job
from jobs.state.repository import Repository
from worker.due import Sweep
from worker.limits import ConcurrencyLimit

from .harness import Bench, Row
from .jobs_in_redis import park

DUE = 1000
#: the goal for one job, in bytes
MEMORY_GOAL = 1000
STEPS = 3


def measure(bench: Bench) -> Sequence[Row]:
    """Measure memory and CPU; there is nothing to compare with, for a parked job holds no process, connection or slot."""
    count = bench.size(100_000, 10_000)
    bench.say("starting Redis")
    url = bench.redis()
    with Redis.from_url(url) as redis:
        before = _used_memory(redis)
        bench.say(f"parking {count:,} jobs")
        park(url, count)
        size = (_used_memory(redis) - before) / count
    bench.say(f"{DUE:,} of them due")
    wall, cpu = _sweep(url)
    return [
        Row(
            f"parked, {count:,} jobs in running: Redis per job",
            f"{size:,.0f} bytes",
            goal=f"{MEMORY_GOAL:,} bytes",
            met=size <= MEMORY_GOAL,
        ),
        Row(
            f"parked: the sweep reads {DUE:,} due jobs",
            f"{wall * 1000:.0f} ms, {cpu * 1e6 / DUE:.0f} us of CPU per job",
        ),
    ]


def _used_memory(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])


def _sweep(url: str) -> tuple[float, float]:
    """Sweep until every due job was found; returns wall and CPU seconds."""
    due, attended = set(park(url, DUE, due_in_seconds=-1)), list[str]()

    def attend(job: Job, _living: frozenset[str]) -> None:
        attended.append(job.id)

    repository = Repository.open(url, retention_seconds=604_800)
    sweep = Sweep(repository, "sweeper", {}, ("deepmode",), ConcurrencyLimit(1000), frozenset, attend, lambda _: None)
    repository.tick("sweeper", {}, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    while sweep.run_once():
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert set(attended) == due
    return wall, cpu
