"""What all benchmarks share: real processes on loopback, side-by-side runs, and the rows of the table.

The machine may be shared and its clock speed changes, so that figures of different times cannot be compared: both sides run in
turn (A B A B), each figure is the median of its side, and their ratio is what counts. CPU is the CPU time of the processes.
Times of two processes are compared by the monotonic clock, which they share.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

import jobs
from jobs.embedded import Command, Process, Processes, free_port
from jobs.embedded import redis as embedded_redis
from jobs.providers import deepmode

HERE = Path(__file__).resolve().parents[2]
#: how long each part may take
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    figure: str
    ours: str
    other: str = ""
    #: ours divided by the other
    ratio: float | None = None
    goal: str = ""
    #: whether the goal is met; None where there is none
    met: bool | None = None
    #: the ratio of a quick run when the documentation's table was made
    recorded: float | None = None
    #: whether a small ratio is the good one
    smaller_is_better: bool = False

    @property
    def half_as_fast(self) -> bool:
        """Whether the ratio says that Darkroom is less than half as fast as it was, compared with the other side."""
        if self.ratio is None or self.recorded is None:
            return False
        return self.ratio > self.recorded * 2 if self.smaller_is_better else self.ratio < self.recorded / 2


@dataclass(frozen=True)
class Bench:
    """The tools of one benchmark: its size, its progress bar, and processes that end with it."""

    quick: bool
    say: Callable[[str], None]
    processes: Processes
    folder: Path

    def size(self, usual: int, quick: int) -> int:
        """The first size, or the second in a quick run."""
        return quick if self.quick else usual

    def python(self, name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Process:
        """Start a Python module in a process of its own."""
        return self.processes.start(Command(name, [sys.executable, "-m", *arguments], environ or {}, HERE))

    def redis(self) -> str:
        """Start a Redis with an append-only file; returns its URL."""
        source = embedded_redis.resolve()
        assert not isinstance(source, embedded_redis.External)
        _, url = embedded_redis.start(self.processes, source, self.folder / f"redis-{free_port()}")
        return url

    def loopback(self, latency_seconds: float, *options: str) -> Loopback:
        """Start a process that is the provider, the host of its images and the S3 storage."""
        port = free_port()
        process = self.python("loopback", "tests.benchmarks.loopback", str(port), str(latency_seconds), *options)
        side = Loopback(port)
        process.await_ready(side.answers)
        return side

    @contextmanager
    def worker(self, environ: Mapping[str, str], *options: str) -> Iterator[psutil.Process]:
        """Run one worker process; it is ready."""
        process = self.python("worker", "celery", "-A", "worker", "worker", "-l", "warning", *options, environ=environ)
        with Redis.from_url(environ["DARKROOM_REDIS_URL"]) as redis:
            itself = f'"pid": {process.pid},'.encode()
            process.await_ready(lambda: any(itself in said for said in redis.hvals("darkroom:workers")))
        try:
            yield psutil.Process(process.pid)
        finally:
            self.processes.kill(process)


@dataclass(frozen=True)
class Loopback:
    """The server of `loopback.py`."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def figures(self, *, keep: bool = True) -> Mapping[str, Any]:
        """What it has counted; without `keep` it counts anew."""
        headers = {"X-Figures": "keep"} if keep else {}
        request = urllib.request.Request(f"{self.url}/figures", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            seen: Mapping[str, Any] = json.load(answer)
        return seen

    def answers(self) -> bool:
        try:
            return bool(self.figures())
        except OSError:
            return False

    def environ(self, redis_url: str, folder: Path) -> Mapping[str, str]:
        """The settings of an installation with this provider and storage."""
        return {
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_BROKER_URL": "",
            "DARKROOM_PUBLIC_URL": "",  # so that the provider answers with the images
            "DARKROOM_STORAGE_URL": "s3://images",
            "DARKROOM_SPOOL_DIR": str(folder / "spool"),
            "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "DEEPMODE_API_KEY": "a-key",
            "DEEPMODE_BASE_URL": self.url,
            **self.s3_environ,
        }

    @property
    def s3_environ(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIABENCHMARK",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
        }


def run_jobs(side: Loopback, send: Callable[[int], object], count: int) -> None:
    """Send so many jobs, and wait until the image of each is stored."""
    side.figures(keep=False)
    send(count)
    until(lambda: side.figures()["puts"] >= count, "the jobs", every_seconds=0.05)
    time.sleep(0.3)  # until the last records are written


@dataclass
class Sides:
    """Measurements of two sides that took turns."""

    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.ours), statistics.median(self.other)

    @property
    def ratio(self) -> float:
        """Ours divided by the other: the median of the rounds, each of which had the same conditions for both sides."""
        return statistics.median(ours / other for ours, other in zip(self.ours, self.other, strict=True))


def side_by_side(rounds: int, ours: Callable[[], float], other: Callable[[], float]) -> Sides:
    """Run both sides in turn."""
    return Sides(*in_turn(rounds, ours, other))


def in_turn(rounds: int, *sides: Callable[[], float]) -> Sequence[list[float]]:
    """Run all sides in turn, each so many times; returns the results of each."""
    results: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, seen in zip(sides, results, strict=True):
            seen.append(side())
    return results


def compared(
    figure: str,
    sides: Sides,
    ours: str,
    other: str,
    *,
    goal: float | None = None,
    recorded: float | None = None,
    smaller_is_better: bool = False,
) -> Row:
    """The row of two sides. `ours` and `other` are formats of their medians, such as "{:,.0f} jobs/s"."""
    mine, theirs = sides.medians
    met = None if goal is None else sides.ratio <= goal if smaller_is_better else sides.ratio >= goal
    wanted = "" if goal is None else f"{goal:g} x"
    return Row(
        figure,
        ours.format(mine),
        other.format(theirs),
        sides.ratio,
        wanted,
        met,
        recorded,
        smaller_is_better,
    )


def quantile(values: Sequence[float], part: float) -> float:
    """The value that this part of them is not above: 0.99 for the 99th percentile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


REQUEST = deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt="a lake at dawn")


def enqueue(count: int) -> float:
    """Enqueue so many jobs, with the settings of the environment; returns how many per second."""
    return rate(lambda: jobs.enqueue(REQUEST), count)


def enqueue_many(count: int, batch: int = 100, *, deadline_seconds: float | None = None) -> float:
    """Enqueue so many jobs in batches, with the settings of the environment; returns how many jobs per second."""
    new = [jobs.NewJob(REQUEST, deadline_seconds=deadline_seconds)] * batch
    return batch * rate(lambda: jobs.enqueue_many(new), count // batch)


def rate(call: Callable[[], object], count: int) -> float:
    """Call it so many times; returns how many times per second."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - started)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set these environment variables while the block runs."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cpu_seconds(process: psutil.Process) -> float:
    """The CPU time of a process and its children, user and system."""
    times = process.cpu_times()
    return float(times.user + times.system) + sum(cpu_seconds(child) for child in process.children())


def pss_bytes(process: psutil.Process) -> int:
    """The memory of a process, with its share of shared pages."""
    return int(process.memory_full_info().pss)


def until(done: Callable[[], bool], what: str, every_seconds: float = 0.1) -> None:
    """Wait until `done()` is true. Raises TimeoutError."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{what} took longer than {PATIENCE_SECONDS:g} s")
        time.sleep(every_seconds)


@contextmanager
def bench(folder: Path, say: Callable[[str], None], *, quick: bool) -> Iterator[Bench]:
    """The tools of one benchmark."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        processes = stack.enter_context(Processes(folder / "logs"))
        yield Bench(quick, say, processes, folder)
