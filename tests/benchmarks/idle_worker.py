"""A worker without a job: its CPU and memory, beside those of a Celery worker with one process that has no task."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import psutil

from .harness import Bench, Row, cpu_seconds, environment, pss_bytes
from .peers import celery_worker

#: the goals: percent of a core, and megabytes
CPU_GOAL, MEMORY_GOAL = 0.3, 70
STEPS = 2


def measure(bench: Bench) -> Sequence[Row]:
    """Look at both idle workers at the same time, in rounds."""
    bench.say("starting Redis and workers")
    environ = dict(bench.loopback(0.0).environ(bench.redis(), bench.folder))
    with environment(**environ), bench.worker(environ) as worker, celery_worker(bench, environ, 1) as (peer, _):
        time.sleep(bench.size(10, 2))  # until the start is over
        bench.say("both workers idle")
        rounds = [_cpu_percent((worker, peer), bench.size(10, 2)) for _ in range(bench.size(5, 1))]
        megabytes, peer_megabytes = (_family_bytes(process) / 1e6 for process in (worker, peer))
    percent, peer_percent = map(statistics.median, zip(*rounds, strict=True))
    figure, against = "idle worker", "a Celery worker with one process"
    return [
        Row(
            f"{figure}: CPU, against {against}",
            f"{percent:.2f} % of a core", f"{peer_percent:.2f} %",
            goal=f"{CPU_GOAL} %", met=percent <= CPU_GOAL,
        ),
        Row(
            f"{figure}: memory (PSS), against {against}",
            f"{megabytes:.0f} MB", f"{peer_megabytes:.0f} MB", megabytes / peer_megabytes,
            f"{MEMORY_GOAL} MB", megabytes <= MEMORY_GOAL,
        ),
    ]  # fmt: skip


def _cpu_percent(processes: Sequence[psutil.Process], seconds: float) -> Sequence[float]:
    """What each of them takes of a core in the next so many seconds, in percent."""
    before = [cpu_seconds(process) for process in processes]
    time.sleep(seconds)
    return [(cpu_seconds(process) - was) / seconds * 100 for process, was in zip(processes, before, strict=True)]


def _family_bytes(process: psutil.Process) -> int:
    return pss_bytes(process) + sum(map(_family_bytes, process.children()))
