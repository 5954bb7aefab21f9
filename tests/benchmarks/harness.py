"""What all benchmarks share: real processes on loopback, side-by-side runs, and the rows of the table.

The machine may be shared and its clock speed changes, so that figures of different times cannot be compared: both sides run in
turn (A B A B), each figure is the median of its side, and their ratio is what counts. CPU is the CPU time of the processes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from redis import Redis

import jobs
from jobs.embedded import Command, Process, Processes, free_port
from jobs.embedded import redis as embedded_redis
from jobs.providers import deepmode

HERE = Path(__file__).resolve().parents[2]
#: how long each part may take
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Row:
    """One line of the table; `met` is None where the figure has no target."""

    figure: str
    ours: str
    other: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None


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
    def worker(self, environ: Mapping[str, str]) -> Iterator[psutil.Process]:
        """Run one worker process; it is ready."""
        process = self.python("worker", "celery", "-A", "worker", "worker", "-l", "warning", environ=environ)
        with Redis.from_url(environ["DARKROOM_REDIS_URL"]) as redis:
            process.await_ready(lambda: bool(redis.zcard("darkroom:holders")))
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

    def figures(self, *, keep: bool = True) -> Mapping[str, float]:
        """What it has counted; without `keep` it counts anew."""
        headers = {"X-Figures": "keep"} if keep else {}
        request = urllib.request.Request(f"{self.url}/figures", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            seen: Mapping[str, float] = json.load(answer)
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
    sides = Sides()
    for _ in range(rounds):
        sides.ours.append(ours())
        sides.other.append(other())
    return sides


def enqueue(count: int) -> float:
    """Enqueue so many jobs, with the settings of the environment; returns how many per second."""

    def one() -> None:
        jobs.enqueue(deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt="a lake at dawn"))

    return rate(one, count)


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
