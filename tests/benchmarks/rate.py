"""Whole jobs per second, with calls of 1 s: one worker process against the plain Celery task and a taskiq task.

The rate is the median of the rounds, each from the first call to the last stored image. Celery needs a process for each call in
progress; it has 16. taskiq has its defaults, two processes with 100 tasks each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .harness import Bench, Loopback, Row, Sides, compared, enqueue_many, environment, in_turn, run_jobs
from .peers import celery_worker, taskiq_worker

LATENCY_SECONDS = 1.0
PROCESSES, QUICK_PROCESSES = 16, 4
#: against plain Celery, in a quick run
QUICK_RATIO = 25.0
STEPS = 3


def measure(bench: Bench) -> Sequence[Row]:
    """Run all sides in turn."""
    bench.say("starting Redis, provider, storage and workers")
    side, redis_url = bench.loopback(LATENCY_SECONDS), bench.redis()
    processes = bench.size(PROCESSES, QUICK_PROCESSES)
    environ = dict(side.environ(redis_url, bench.folder))
    with (
        environment(**environ),
        bench.worker(environ),
        celery_worker(bench, environ, processes) as (_, delay),
        taskiq_worker(bench, environ) as (_, kick),
    ):
        bench.say("warming up")
        run_jobs(side, enqueue_many, 100), run_jobs(side, delay, processes), run_jobs(side, kick, 10)
        bench.say("worker, plain Celery and taskiq in turn")
        ours, celery, taskiq = in_turn(
            bench.size(5, 1),
            lambda: _rate(side, enqueue_many, bench.size(2000, 200)),
            lambda: _rate(side, delay, bench.size(96, 8)),
            lambda: _rate(side, kick, bench.size(1000, 200)),
        )
    figure, form = "the whole job, 1 MB, calls of 1 s: jobs per second, against", "{:.1f} jobs/s"
    plain = f"{figure} the plain Celery task (prefork, {processes} processes)"
    return [
        compared(plain, Sides(ours, celery), form, form, goal=22, recorded=QUICK_RATIO),
        compared(f"{figure} a taskiq task (2 processes)", Sides(ours, taskiq), form, form, recorded=1.0),
    ]


def _rate(side: Loopback, send: Callable[[int], object], count: int) -> float:
    """Run so many jobs; returns how many per second."""
    run_jobs(side, send, count)
    seen = side.figures()
    return count / (seen["last_put_at"] - seen["first_call_at"])
