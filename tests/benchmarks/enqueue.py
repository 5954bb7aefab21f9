"""`jobs.enqueue` and `jobs.enqueue_many` against Celery's `delay()` and taskiq's `kiq()` of a task that does nothing, on one Redis.

Ours check the request, and write the record, the sets of due jobs, lane and index, and the wake-up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from celery import Celery
from taskiq_redis import RedisStreamBroker

from .harness import Bench, Row, Sides, compared, enqueue, enqueue_many, environment, in_turn, rate

#: jobs of one call of `enqueue_many`
BATCH = 100
STEPS = 2


def measure(bench: Bench) -> Sequence[Row]:
    """Run all sides in this process, in turn."""
    url, count = bench.redis(), bench.size(2000, 500)
    bench.say("starting Redis")
    with environment(DARKROOM_REDIS_URL=url, DARKROOM_STORAGE_URL=f"file://{bench.folder}"), _kiq(url) as kiq:
        delay = _noop(url).delay
        enqueue(100), enqueue_many(100), rate(delay, 100), kiq(100)
        bench.say("enqueue, enqueue_many, delay() and kiq() in turn")
        one, many, delayed, kicked = in_turn(
            bench.size(7, 3),
            lambda: enqueue(count),
            lambda: enqueue_many(2 * count, BATCH),
            lambda: rate(delay, count),
            lambda: kiq(count),
        )
    ours, tasks = "{:,.0f} jobs/s", "{:,.0f} tasks/s"
    many_figure = f"enqueue_many of {BATCH}, against Celery's delay()"
    return [
        compared("enqueue, against Celery's delay()", Sides(one, delayed), ours, tasks, goal=3, recorded=2),
        compared(many_figure, Sides(many, delayed), ours, tasks, goal=10, recorded=4),
        compared("enqueue, against taskiq's kiq()", Sides(one, kicked), ours, tasks, recorded=1),
    ]


def _noop(url: str) -> Celery:
    app = Celery("noop", broker=url, set_as_current=False)

    @app.task(name="noop")
    def noop() -> None:
        """Do nothing."""

    return noop


@contextmanager
def _kiq(url: str) -> Iterator[Callable[[int], float]]:
    """A function that sends so many tasks, one after the other, and returns how many per second."""
    broker = RedisStreamBroker(url)

    @broker.task(task_name="noop")
    async def noop() -> None:
        """Do nothing."""

    async def send(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            await noop.kiq()
        return count / (time.perf_counter() - started)

    with asyncio.Runner() as runner:
        runner.run(broker.startup())
        yield lambda count: runner.run(send(count))
        runner.run(broker.shutdown())
