"""A job from submit to stored picture: the worker's CPU against a bare script, and jobs a second against a plain Celery task."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil
from celery import Celery

from .harness import HERE, Bench, Loopback, Row, cpu_seconds, enqueue, environment, side_by_side, until

#: calls that the bare script makes at once; the worker makes as many as it likes
CONCURRENCY = 50
#: seconds of the vendor's answer: short where CPU is measured, one second where rates are
CPU_LATENCY_SECONDS, RATE_LATENCY_SECONDS = 0.2, 1.0
STEPS = 5


def measure(bench: Bench) -> Sequence[Row]:
    """First what a job costs, then how many a machine does."""
    return [_cpu(bench), _rate(bench)]


# What a job costs ---------------------------------------------------------------------------------------------------


def _cpu(bench: Bench) -> Row:
    bench.say("starting Redis, vendor, store and worker")
    side, count = bench.loopback(CPU_LATENCY_SECONDS), bench.size(600, 200)
    environ = side.environ(bench.redis(), bench.folder)
    with environment(**environ), bench.worker(environ) as worker:
        _darkroom_cpu(side, worker, 30)
        bench.say("worker and bare script in turn: CPU a job")
        rounds = bench.size(5, 2)
        sides = side_by_side(rounds, lambda: _darkroom_cpu(side, worker, count), lambda: _bare_cpu(side, count))
    ours, other = sides.medians
    return Row(
        "the whole job, 1 MB: worker CPU a job, against a bare aiohttp script",
        f"{ours:.2f} ms",
        f"{other:.2f} ms",
        f"{sides.ratio:.1f} x",
        "3 x",
        sides.ratio <= 3,
    )


def _darkroom_cpu(side: Loopback, worker: psutil.Process, count: int) -> float:
    """CPU milliseconds of the worker for one job."""
    side.figures(keep=False)
    before = cpu_seconds(worker)
    enqueue(count)
    until(lambda: side.figures()["puts"] >= count, "the jobs", every_seconds=0.05)
    time.sleep(0.3)  # the last records are written
    return (cpu_seconds(worker) - before) * 1000 / count


def _bare_cpu(side: Loopback, count: int) -> float:
    """CPU milliseconds of the bare script for one job."""
    command = [sys.executable, "-m", "tests.benchmarks.bare_aiohttp", side.url, str(count), str(CONCURRENCY)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, check=True, text=True)
    return float(done.stdout) * 1000 / count


# How many a machine does --------------------------------------------------------------------------------------------


def _rate(bench: Bench) -> Row:
    side, redis_url = bench.loopback(RATE_LATENCY_SECONDS), bench.redis()
    environ = dict(side.environ(redis_url, bench.folder))
    bench.say("jobs a second: one worker process")
    with environment(**environ), bench.worker(environ):
        ours = _saturated(side, enqueue, bench.size(3000, 1000))
    bench.say("jobs a second: the plain Celery task, 16 processes")
    task = Celery("first", broker=redis_url, set_as_current=False).signature("tests.benchmarks.first_task.render")
    plain = bench.python(
        "plain", "celery", "-A", "tests.benchmarks.first_task", "worker", "-c", "16", "-l", "warning",
        environ={**environ, "BROKER_URL": redis_url},
    )  # fmt: skip
    task.delay("a lake at dawn")
    until(lambda: bool(side.figures()["puts"]), "the start of the plain worker")

    def send(count: int) -> None:
        for _ in range(count):
            task.delay("a lake at dawn")

    other = _saturated(side, send, bench.size(240, 96))
    bench.processes.kill(plain)
    return Row(
        "the whole job, 1 MB, a call of 1 s: jobs a second, against the plain Celery task (prefork, 16 processes)",
        f"{ours:.0f} jobs/s",
        f"{other:.1f} jobs/s",
        f"{ours / other:.1f} x",
        "10 x",
        ours / other >= 10,
    )


def _saturated(side: Loopback, send: Callable[[int], object], count: int) -> float:
    """Jobs a second from the first call to the last picture in the store."""
    side.figures(keep=False)
    send(count)
    until(lambda: side.figures()["puts"] >= count, "the jobs")
    seen = side.figures()
    return count / (seen["last_put_at"] - seen["first_call_at"])
