"""What Darkroom is compared with: workers of Celery and taskiq, whose task is written as their documentation shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psutil
from celery import Celery
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from .harness import Bench

#: a running worker, and a function that sends it so many tasks
Peer = tuple[psutil.Process, Callable[[int], object]]

PROMPT = "a lake at dawn"


@contextmanager
def celery_worker(bench: Bench, environ: Mapping[str, str], concurrency: int) -> Iterator[Peer]:
    """Run a Celery worker with the task of `first_task.py`, in its default pool of processes."""
    url = environ["DARKROOM_REDIS_URL"]
    process = bench.python(
        "celery", "celery", "-A", "tests.benchmarks.first_task", "worker", "-c", str(concurrency), "-l", "warning",
        environ={**environ, "BROKER_URL": url},
    )  # fmt: skip
    app = Celery("first", broker=url, set_as_current=False)
    task = app.signature("tests.benchmarks.first_task.render")
    process.await_ready(lambda: bool(app.control.ping(timeout=0.5)))

    def send(count: int) -> None:
        for _ in range(count):
            task.delay(PROMPT)

    try:
        yield psutil.Process(process.pid), send
    finally:
        bench.processes.kill(process)


@contextmanager
def taskiq_worker(bench: Bench, environ: Mapping[str, str]) -> Iterator[Peer]:
    """Run a taskiq worker with the task of `taskiq_task.py`."""
    url = environ["DARKROOM_REDIS_URL"]
    process = bench.python(
        "taskiq", "taskiq", "worker", "tests.benchmarks.taskiq_task:broker", environ={**environ, "BROKER_URL": url}
    )
    broker = RedisStreamBroker(url)
    task: AsyncKicker[[str], None] = AsyncKicker("tests.benchmarks.taskiq_task:render", broker, {})

    async def send(count: int) -> None:
        for _ in range(count):
            await task.kiq(PROMPT)

    with asyncio.Runner() as runner:
        runner.run(broker.startup())
        try:
            yield psutil.Process(process.pid), lambda count: runner.run(send(count))
        finally:
            runner.run(broker.shutdown())
            bench.processes.kill(process)
