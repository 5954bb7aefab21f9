"""A job from submit to stored image: CPU of the worker against a bare script, and jobs per second against a plain Celery task."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil
from celery import Celery

from .harness import HERE, Bench, Loopback, Row, cpu_seconds, enqueue, environment, side_by_side, until

#: concurrent calls of the bare script; the worker has no limit here
CONCURRENCY = 50
#: how long the provider takes, in seconds: short where CPU is measured, one second where rates are
CPU_LATENCY_SECONDS, RATE_LATENCY_SECONDS = 0.2, 1.0
STEPS = 5


def measure(bench: Bench) -> Sequence[Row]:
    """Measure the CPU of a job, then the rate."""
    return [_cpu(bench), _rate(bench)]


# CPU ---------------------------------------------------------------------------------------------------


def _cpu(bench: Bench) -> Row:
    bench.say("starting Redis, provider, storage and worker")
    side, count = bench.loopback(CPU_LATENCY_SECONDS), bench.size(600, 200)
    environ = side.environ(bench.redis(), bench.folder)
    with environment(**environ), bench.worker(environ) as worker:
        _darkroom_cpu(side, worker, 30)
        bench.say("worker and bare script in turn: CPU per job")
        rounds = bench.size(5, 2)
        sides = side_by_side(rounds, lambda: _darkroom_cpu(side, worker, count), lambda: _bare_cpu(side, count))
    ours, other = sides.medians
    return Row(
        "the whole job, 1 MB: worker CPU per job, against a bare aiohttp script",
        f"{ours:.2f} ms",
        f"{other:.2f} ms",
        f"{sides.ratio:.1f} x",
        "3 x",
        sides.ratio <= 3,
    )


def _darkroom_cpu(side: Loopback, worker: psutil.Process, count: int) -> float:
    """Run so many jobs; returns the CPU milliseconds of the worker per job."""
    side.figures(keep=False)
    before = cpu_seconds(worker)
    enqueue(count)
    until(lambda: side.figures()["puts"] >= count, "the jobs", every_seconds=0.05)
    time.sleep(0.3)  # until the last records are written
    return (cpu_seconds(worker) - before) * 1000 / count


def _bare_cpu(side: Loopback, count: int) -> float:
    """Run so many jobs by the bare script; returns its CPU milliseconds per job."""
    command = [sys.executable, "-m", "tests.benchmarks.bare_aiohttp", side.url, str(count), str(CONCURRENCY)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, check=True, text=True)
    return float(done.stdout) * 1000 / count


# rate --------------------------------------------------------------------------------------------


def _rate(bench: Bench) -> Row:
    side, redis_url = bench.loopback(RATE_LATENCY_SECONDS), bench.redis()
    environ = dict(side.environ(redis_url, bench.folder))
    bench.say("jobs per second: one worker process")
    with environment(**environ), bench.worker(environ):
        ours = _saturate(side, enqueue, bench.size(3000, 1000))
    bench.say("jobs per second: the plain Celery task, 16 processes")
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

    other = _saturate(side, send, bench.size(240, 96))
    bench.processes.kill(plain)
    return Row(
        "the whole job, 1 MB, calls of 1 s: jobs per second, against the plain Celery task (prefork, 16 processes)",
        f"{ours:.0f} jobs/s",
        f"{other:.1f} jobs/s",
        f"{ours / other:.1f} x",
        "10 x",
        ours / other >= 10,
    )


def _saturate(side: Loopback, send: Callable[[int], object], count: int) -> float:
    """Run so many jobs; returns how many per second, from the first call to the last stored image."""
    side.figures(keep=False)
    send(count)
    until(lambda: side.figures()["puts"] >= count, "the jobs")
    seen = side.figures()
    return count / (seen["last_put_at"] - seen["first_call_at"])
