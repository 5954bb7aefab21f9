"""Open-loop load on a real receiver: `python -m tests.load [SECONDS [RATE]]` prints a table and fails on an error.

Requests are offered at a fixed rate however long the answers take, so that a stall shows in every request behind it: each time is
measured from when the request was due. A third of them are callbacks, a third polls, a third enqueues; beside them 100 clients
wait, half by `Prefer: wait`, half by server-sent events.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from jobs import callback_url, transitions
from jobs.darkroom import Darkroom
from jobs.embedded import Command, Process, Processes, free_port
from jobs.embedded import redis as embedded_redis
from jobs.providers import deepmode
from jobs.settings import Settings

SECONDS, RATE = 60, 300
WAITERS = 100
#: threads of the receiver: three quarters may wait
THREADS = 144
#: the first seconds are not counted, because the receiver starts its threads then
WARM_UP_SECONDS = 3
KEY, SECRET = "load", "a-secret-for-the-load-run"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
NEW = json.dumps({"operation": "deepmode.generate", "params": {"model_id": "m", "prompt": "a lake at dawn"}})
RESULT = json.dumps({"images": [{"id": "a", "image_url": "https://pictures.example.com/a.png"}]})


@dataclass
class Tally:
    """The answers to one kind of request."""

    #: seconds from the time when a request was due until it was answered
    durations: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def percentile(self, share: float) -> float:
        """A percentile of the durations, in milliseconds."""
        ordered = sorted(self.durations)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if not status.startswith("2"))


@dataclass
class Run:
    """One run against a receiver."""

    url: str
    session: aiohttp.ClientSession
    callbacks: Iterator[str]
    polled: Iterator[str]
    awaited: str
    tallies: dict[str, Tally] = field(
        default_factory=lambda: {name: Tally() for name in ("callback", "poll", "enqueue")}
    )
    waiting: Counter[str] = field(default_factory=Counter)

    async def offer(self, seconds: float, rate: float) -> None:
        """Send requests at a fixed rate, however long the answers take."""
        kinds: list[tuple[str, Callable[[], Awaitable[int]]]] = [
            ("callback", lambda: self._request("POST", next(self.callbacks), RESULT)),
            ("poll", lambda: self._request("GET", f"/v1/jobs/{next(self.polled)}")),
            ("enqueue", lambda: self._request("POST", "/v1/jobs", NEW)),
        ]
        began, sent = time.perf_counter(), []
        for number in range(int(seconds * rate)):
            due = began + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            name, request = kinds[number % 3]
            sent.append(asyncio.create_task(self._timed(name, request, due, counted=due - began > WARM_UP_SECONDS)))
        await asyncio.gather(*sent)

    async def _timed(self, name: str, request: Callable[[], Awaitable[int]], due: float, *, counted: bool) -> None:
        tally = self.tallies[name]
        try:
            status = str(await request())
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        tally.statuses[status] += 1
        if counted:
            tally.durations.append(time.perf_counter() - due)

    async def _request(self, method: str, path: str, body: str | None = None) -> int:
        headers = {**AUTHORIZED, "Content-Type": "application/json"}
        async with self.session.request(method, self.url + path, data=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def wait(self, number: int) -> None:
        """Be a client that waits without end: by long polls, or by a stream of events."""
        path = f"{self.url}/v1/jobs/{self.awaited}"
        while True:
            options = {"headers": {**AUTHORIZED, "Prefer": "wait=20"}} if number % 2 else {"headers": AUTHORIZED}
            async with self.session.get(path if number % 2 else f"{path}/events", **options) as answer:
                granted = "Preference-Applied" in answer.headers if number % 2 else answer.status == 200
                self.waiting["held" if granted else "refused"] += 1
                await answer.read()


def listens(port: int) -> bool:
    """Whether a server accepts connections at the port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def receiver(processes: Processes, environ: dict[str, str]) -> Iterator[tuple[str, Process]]:
    """A granian worker: its URL and its process."""
    port = free_port()
    options = ["--interface", "wsgi", "--http", "1", "--no-ws", "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "granian", *options, "--factory", "webhooks:create_app"]
    own = {**environ, "GRANIAN_BLOCKING_THREADS": str(THREADS)}
    process = processes.start(Command("receiver", command, own, Path(__file__).parents[2]))
    process.await_ready(lambda: listens(port))
    yield f"http://127.0.0.1:{port}", process
    processes.stop(process)


def park_jobs(settings: Settings, number: int) -> tuple[list[str], str]:
    """Enqueue and submit so many jobs, and one for which all clients wait; return their ids."""
    ids = []
    with closing(Darkroom.open(settings)) as darkroom:
        for _ in range(number + 1):
            job = darkroom.enqueue(deepmode.Generate(model_id="m", prompt="a lake at dawn"))
            darkroom.advance(job.id, lambda job, now: transitions.claimed(job, "load", now))
            ids.append(darkroom.advance(job.id, lambda job, now: transitions.submitting(job, "load", now)).after.id)
    return ids[:-1], ids[-1]


def memory(root: Process) -> float:
    """The memory of a process and its children, in MB."""
    process = psutil.Process(root.pid)
    return float(sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6)


async def measure(
    url: str, process: Process, seconds: float, rate: float, ids: list[str], awaited: str
) -> tuple[Run, list[float]]:
    """Run the load; return it, and the memory of the receiver after each tenth of it."""
    paths = iter([callback_url.callback_url("/webhooks", "deepmode", id, 1, [SECRET]) for id in ids])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=90)) as session:
        run = Run(url, session, paths, iter(ids * 2), awaited)
        waiters = [asyncio.create_task(run.wait(number)) for number in range(WAITERS)]
        await asyncio.sleep(2)
        offered = asyncio.create_task(run.offer(seconds, rate))
        sizes = []
        for _ in range(10):
            sizes.append(memory(process))
            await asyncio.sleep(seconds / 10)
        await offered
        sizes.append(memory(process))
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
    return run, sizes


def print_report(run: Run, sizes: list[float], seconds: float, rate: float) -> None:
    """Print the table."""
    table = Table("requests", "sent", "p50 ms", "p99 ms", "max ms", "errors")
    for name, tally in run.tallies.items():
        figures = (f"{tally.percentile(share):.1f}" for share in (0.5, 0.99, 1.0))
        table.add_row(name, str(tally.statuses.total()), *figures, str(tally.errors))
    console = Console()
    console.print(
        f"{rate:g} requests/s offered for {seconds:g} s beside {WAITERS} waiting clients ({dict(run.waiting)})"
    )
    console.print(table)
    console.print(f"memory of the receiver, MB: {' '.join(f'{size:.0f}' for size in sizes)}")


def main(seconds: float = SECONDS, rate: float = RATE) -> int:
    """Run it; return 0 if there was no error."""
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        source = embedded_redis.resolve()
        (Path(folder) / "redis").mkdir()
        _, redis_url = embedded_redis.start(processes, source, Path(folder) / "redis")
        environ = {
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_STORAGE_URL": f"file://{folder}/images",
            "DARKROOM_SPOOL_DIR": f"{folder}/spool",
            "DARKROOM_SECRET_KEYS": SECRET,
            "DARKROOM_API_KEYS": KEY,
        }
        settings = Settings(redis_url=redis_url, storage_url=environ["DARKROOM_STORAGE_URL"], secret_keys=SECRET)
        ids, awaited = park_jobs(settings, int(seconds * rate / 3) + 1)
        with receiver(processes, environ) as (url, process):
            run, sizes = asyncio.run(measure(url, process, seconds, rate, ids, awaited))
    print_report(run, sizes, seconds, rate)
    return int(any(tally.errors for tally in run.tallies.values()))


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:3])))
