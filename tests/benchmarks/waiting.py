"""1,000,000 waiting jobs and 200 workers: how long each script takes in Redis, by the log that Redis keeps of its commands.

One worker is a process that works on the jobs. The others only renew their leases, twice a second each, as a worker does that has
no room. Meanwhile jobs are enqueued, one by one and then in batches.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from redis import Redis

from jobs.state import scripts
from jobs.state.repository import Repository
from worker.due import INTERVAL_SECONDS

from .harness import Bench, Row, enqueue, enqueue_many, environment, quantile, until

WORKERS = 200
#: jobs of one call of `enqueue_many`
BATCH = 100
#: the longest deadline, in seconds, so that no job ends while it waits
DEADLINE_SECONDS = 604_800.0
#: calls of a second that the worker has in progress, so that it takes few of the jobs that wait
CALLS = 100
#: the goal for the p99 of each script, in milliseconds
GOAL = 1.0
#: commands that Redis keeps in its log
_LOG_ENTRIES = 50_000
STEPS = 3

#: the milliseconds of each call, by the name of the script
Times = Mapping[str, Sequence[float]]


def measure(bench: Bench) -> Sequence[Row]:
    """Fill the lane once, and measure."""
    count = bench.size(1_000_000, 10_000)
    [seen] = measure_waiting(bench, [count])
    return [
        Row(
            f"{count:,} jobs waiting, {WORKERS} workers: script `{name}` in Redis, p99",
            f"{(p99 := quantile(times, 0.99)):.2f} ms, median {quantile(times, 0.5):.2f} ms",
            goal=f"{GOAL:g} ms",
            met=p99 <= GOAL,
        )
        for name, times in sorted(seen.items())
    ]


def measure_waiting(bench: Bench, counts: Sequence[int]) -> Iterator[Times]:
    """Let ever more jobs wait, and yield the times of the scripts at each of these counts."""
    bench.say("starting Redis and provider")
    url = bench.redis()
    environ = {
        **bench.loopback(1.0, "-acknowledge").environ(url, bench.folder),
        "DARKROOM_MAX_CALLS_IN_FLIGHT": str(CALLS),
    }
    waiting = 0
    with environment(**environ), Redis.from_url(url) as redis:
        for count in counts:
            bench.say(f"enqueuing {count - waiting:,} jobs")
            enqueue_many(count - waiting, BATCH, deadline_seconds=DEADLINE_SECONDS)
            waiting = count
            until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"], "the rewrite of Redis' file")
            bench.say(f"{count:,} jobs wait")
            with bench.worker(environ), _leases(url, WORKERS - 1):
                yield _measure(redis, min(count // 5, 2000), bench.size(5, 1))


def _measure(redis: Redis, count: int, seconds: float) -> Times:
    time.sleep(seconds)  # until the worker has as many calls as it takes
    with _logged(redis) as times:
        enqueue(count)
        time.sleep(seconds)
    with _logged(redis) as batches:
        enqueue_many(count, BATCH)
    return {**times, f"create, {BATCH} jobs": batches["create"]}


@contextmanager
def _leases(url: str, workers: int) -> Iterator[None]:
    """Renew the leases of so many workers as long as the block runs."""
    repository, ended = Repository.open(url, retention_seconds=604_800), threading.Event()
    holders = [f"{number:016x}" for number in range(workers)]

    def renew() -> None:
        while not ended.wait(INTERVAL_SECONDS):
            for holder in holders:
                repository.tick(holder, {"hostname": "bench", "pid": 1, "operations": ["deepmode.generate"]}, 0)

    thread = threading.Thread(target=renew, name="leases")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        repository.close()


@contextmanager
def _logged(redis: Redis) -> Iterator[dict[str, list[float]]]:
    """The times of the scripts that run while the block does; they are there at its end."""
    names = {
        hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(): name.lower()
        for name, text in vars(scripts).items()
        if name.isupper()
    }
    redis.config_set("slowlog-max-len", _LOG_ENTRIES)
    redis.slowlog_reset()
    redis.config_set("slowlog-log-slower-than", 0)
    times: dict[str, list[float]] = defaultdict(list)
    yield times
    redis.config_set("slowlog-log-slower-than", -1)
    for entry in redis.slowlog_get(_LOG_ENTRIES):
        command, sha, *_ = [*entry["command"].decode(errors="replace").split(" ", 2), ""]
        if command == "EVALSHA" and sha in names:
            times[names[sha]].append(entry["duration"] / 1000)
