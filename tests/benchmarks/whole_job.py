"""A job from submit to stored image: CPU of the worker against a bare script and a taskiq worker, and where that CPU goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

import psutil

from . import threads
from .harness import HERE, Bench, Loopback, Row, Sides, compared, cpu_seconds, enqueue, environment, in_turn, run_jobs
from .peers import taskiq_worker

#: concurrent calls of the bare script; the worker has no limit here
CONCURRENCY = 50
#: how long the provider takes, in seconds
LATENCY_SECONDS = 0.2
#: the part of the worker's CPU that Celery's main thread may take
MAIN_THREAD_GOAL = 0.05
STEPS = 3


def measure(bench: Bench) -> Sequence[Row]:
    """Run all sides in turn."""
    bench.say("starting Redis, provider, storage and workers")
    side, count = bench.loopback(LATENCY_SECONDS), bench.size(600, 60)
    environ = side.environ(bench.redis(), bench.folder)
    with (
        environment(**environ),
        bench.worker(environ, *threads.OPTIONS) as worker,
        taskiq_worker(bench, environ) as (
            peer,
            kick,
        ),
    ):
        run_jobs(side, enqueue, 30), run_jobs(side, kick, 30)
        bench.say("worker, bare script and taskiq in turn: CPU per job")
        before = threads.cpu_times(worker)
        ours, bare, kicked = in_turn(
            bench.size(5, 2),
            lambda: _cpu_ms(side, worker, enqueue, count),
            lambda: _bare_cpu_ms(side, count),
            lambda: _cpu_ms(side, peer, kick, count),
        )
        shares = threads.shares(before, threads.cpu_times(worker), threads.names(worker))
    figure, form = "the whole job, 1 MB: worker CPU per job, against", "{:.2f} ms"
    return [
        compared(
            f"{figure} a bare aiohttp script",
            Sides(ours, bare), form, form, goal=1.7, recorded=1.8, smaller_is_better=True,
        ),
        compared(f"{figure} a taskiq task", Sides(ours, kicked), form, form, recorded=1.0, smaller_is_better=True),
        *(_share_row(name, share) for name, share in shares.items()),
    ]  # fmt: skip


def _cpu_ms(side: Loopback, worker: psutil.Process, send: Callable[[int], object], count: int) -> float:
    """Run so many jobs; returns the CPU milliseconds of the worker per job."""
    before = cpu_seconds(worker)
    run_jobs(side, send, count)
    return (cpu_seconds(worker) - before) * 1000 / count


def _bare_cpu_ms(side: Loopback, count: int) -> float:
    """Run so many jobs by the bare script; returns its CPU milliseconds per job."""
    command = [sys.executable, "-m", "tests.benchmarks.bare_aiohttp", side.url, str(count), str(CONCURRENCY)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, check=True, text=True)
    return float(done.stdout) * 1000 / count


def _share_row(name: str, share: float) -> Row:
    figure, shown = f"the whole job: {name}, of the worker's CPU", f"{share:.1%}"
    if name != threads.MAIN:
        return Row(figure, shown)
    return Row(figure, shown, goal=f"{MAIN_THREAD_GOAL:.0%}", met=share <= MAIN_THREAD_GOAL)
