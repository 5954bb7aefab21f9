"""`jobs.enqueue` against Celery's own `delay()` of a task that does nothing, on the same Redis.

Ours writes the record, its places in the due set, the line and the index, and the message, and checks the request before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from celery import Celery

import jobs
from jobs.providers import deepmode

from .harness import Bench, Row, side_by_side

STEPS = 2


def measure(bench: Bench) -> Sequence[Row]:
    """Both sides in this process, one after the other."""
    url = bench.redis()
    count = bench.size(2000, 500)
    bench.say("starting Redis")
    with environment(DARKROOM_REDIS_URL=url, DARKROOM_STORAGE_URL=f"file://{bench.folder}"):
        delay = _noop(url).delay
        _rate(_enqueue, 100), _rate(delay, 100)
        bench.say("jobs.enqueue and delay() in turn")
        sides = side_by_side(bench.size(7, 3), lambda: _rate(_enqueue, count), lambda: _rate(delay, count))
    ours, other = sides.medians
    return [
        Row(
            "enqueue, against Celery's delay()",
            f"{ours:,.0f} jobs/s",
            f"{other:,.0f} tasks/s",
            f"{sides.ratio:.1f} x",
            "2 x",
            sides.ratio >= 2,
        )
    ]


def _enqueue() -> None:
    jobs.enqueue(deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt="a lake at dawn"))


def _noop(url: str) -> Celery:
    app = Celery("noop", broker=url, set_as_current=False)

    @app.task(name="noop")
    def noop() -> None:
        """Does nothing."""

    return noop


def _rate(call: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - started)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """These variables are set, as an application's deployment would."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
