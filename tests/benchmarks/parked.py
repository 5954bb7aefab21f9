"""What waiting costs: bytes of Redis a job for 100,000 jobs in `running`, and one sweep with 1,000 of them due."""

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
STEPS = 3


def measure(bench: Bench) -> Sequence[Row]:
    """Nothing is compared: a parked job holds no process, no connection and no slot."""
    count = bench.size(100_000, 10_000)
    bench.say("starting Redis")
    url = bench.redis()
    with Redis.from_url(url) as redis:
        before = _used(redis)
        bench.say(f"parking {count:,} jobs")
        park(url, count)
        size = (_used(redis) - before) / count
    bench.say(f"{DUE:,} of them due")
    wall, cpu = _swept(url)
    return [
        Row(f"parked, {count:,} jobs in running: Redis a job", f"{size:,.0f} bytes"),
        Row(
            f"parked: the sweep reads {DUE:,} due jobs", f"{wall * 1000:.0f} ms, {cpu * 1e6 / DUE:.0f} us of CPU a job"
        ),
    ]


def _used(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])


def _swept(url: str) -> tuple[float, float]:
    """Wall and CPU seconds until a sweep has brought every due job."""
    due, attended = set(park(url, DUE, due_in_seconds=-1)), list[str]()

    def attend(job: Job, _living: frozenset[str]) -> None:
        attended.append(job.id)

    repository = Repository.open(url, retention_seconds=604_800)
    sweep = Sweep(repository, "sweeper", {}, ("deepmode",), ConcurrencyLimit(1000), frozenset, attend, lambda _: None)
    repository.tick("sweeper", {}, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    while sweep.look():
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert set(attended) == due
    return wall, cpu
