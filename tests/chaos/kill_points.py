"""A worker is killed at a named step and another one takes over: what became of the job, the money and the images?

A cell is one step with one kind of operation. Each has a Redis database and a folder of the bucket of its own, and workers of
its own: the victims, each killed at its step, and one that lives. The cells run many at a time, for most of their time is the
wait for the dead worker's lease to end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from werkzeug.serving import WSGIRequestHandler, make_server

from jobs.darkroom import Darkroom
from jobs.embedded import Processes, free_port
from jobs.embedded.redis import is_up
from jobs.job import Job
from jobs.sandbox import Sandbox
from webhooks import create_app
from webhooks.receiver import Receiver

from . import servers
from .scenarios import GENERATE, IDEOGRAM_POLL, PHOTA_ASYNC, PHOTA_URLS, REVE_BYTES, Scenario

#: how long a provider takes for a result, in seconds
LATENCY_SECONDS = 1.0
#: how long a worker may take to reach its step, and a job to its final status, in seconds: the machine may be busy
STEP_SECONDS = 120.0
#: how many cells run at once
CONCURRENT_CELLS = 16
#: a kill while the provider has the request and the worker has no answer; not a step of the worker
IN_FLIGHT = "in flight"
#: only the deadline ends an attempt that may not have been sent and could still call back; such cells have this one, in seconds
SHORT_DEADLINE_SECONDS = 40.0
DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class Expected:
    """The result that a cell must have."""

    status: str = "succeeded"
    code: str = ""
    charges: int = 1


STORED = Expected()
UNKNOWN_PAID = Expected("failed", "outcome_unknown", 1)
UNKNOWN_FREE = Expected("failed", "outcome_unknown", 0)
DEADLINE = Expected("failed", "deadline", 0)


@dataclass(frozen=True)
class Cell:
    """One scenario whose workers are killed at these steps, one after the other."""

    scenario: Scenario
    points: tuple[str, ...]
    expected: Expected
    #: whether the storage is away for all but the last worker
    storage_away: bool = False

    @property
    def name(self) -> str:
        away = ", storage away" if self.storage_away else ""
        return f"{self.scenario.name}{away}: {' then '.join(self.points)}"

    @property
    def deadline_seconds(self) -> float:
        return SHORT_DEADLINE_SECONDS if self.expected is DEADLINE else DEADLINE_SECONDS


def _cells(scenario: Scenario, expected: Mapping[str, Expected], **options: Any) -> list[Cell]:
    return [Cell(scenario, (point,), end, **options) for point, end in expected.items()]


#: From "on the ledger" until the answer is reported, an attempt that is lost has an unknown outcome, unless the provider can be asked
#: or calls back; before and after, nothing is unknown.
CELLS: Sequence[Cell] = (
    *_cells(
        PHOTA_URLS,
        {
            "claimed": STORED,
            "prepared": STORED,
            "on the ledger": UNKNOWN_FREE,
            IN_FLIGHT: UNKNOWN_PAID,
            "answered": UNKNOWN_PAID,
            "inline images stored": UNKNOWN_PAID,
            "reported": STORED,
            "image fetched": STORED,
            "image stored": STORED,
            "image stored#2": STORED,
            "images tried": STORED,
            "stored": STORED,
        },
    ),
    *_cells(
        REVE_BYTES,
        {
            "claimed": STORED,
            "prepared": STORED,
            "on the ledger": UNKNOWN_FREE,
            IN_FLIGHT: UNKNOWN_PAID,
            "answered": UNKNOWN_PAID,
            "image stored": STORED,
            "inline images stored": STORED,
            "reported": STORED,
        },
    ),
    *_cells(
        REVE_BYTES,
        {
            "image spooled": STORED,
            "inline images stored": STORED,
            "reported": STORED,
        },
        storage_away=True,
    ),
    *_cells(
        GENERATE,
        {
            "claimed": STORED,
            "prepared": STORED,
            "on the ledger": DEADLINE,
            "answered": STORED,
            "inline images stored": STORED,
            "reported": STORED,
            "claimed#2": STORED,
            "image fetched": STORED,
            "image stored": STORED,
            "images tried": STORED,
            "stored": STORED,
        },
    ),
    *_cells(
        IDEOGRAM_POLL,
        {
            "claimed": STORED,
            "prepared": STORED,
            "on the ledger": UNKNOWN_FREE,
            "answered": UNKNOWN_PAID,
            "inline images stored": UNKNOWN_PAID,
            "reported": STORED,
            "polled": STORED,
            "image fetched": STORED,
            "image stored": STORED,
            "images tried": STORED,
            "stored": STORED,
        },
    ),
    *_cells(
        PHOTA_ASYNC,
        {
            "claimed": STORED,
            "prepared": STORED,
            "on the ledger": STORED,
            "answered": STORED,
            "inline images stored": STORED,
            "reported": STORED,
            "polled": STORED,
        },
    ),
    Cell(REVE_BYTES, ("inline images stored", "rescued"), STORED),
    Cell(PHOTA_URLS, ("reported", "image stored"), STORED),
    Cell(PHOTA_ASYNC, ("answered", "answered"), STORED),
    Cell(PHOTA_URLS, ("answered", "rescued"), UNKNOWN_PAID),
)


@dataclass(frozen=True)
class CellResult:
    """The result of one cell."""

    job: Job
    #: submissions that the providers charged, and all that they received
    charged: int
    submitted: int
    #: the SHA-256 of the images that the provider made
    made: tuple[str, ...]
    #: the SHA-256 of the objects in the bucket, by key
    stored: Mapping[str, str]
    #: the time from the last kill to the final status
    seconds: float
    #: the files that are left in the spool
    spooled: tuple[str, ...] = ()
    log: str = field(default="", repr=False)


@dataclass(frozen=True)
class CellRun:
    """How one cell ended, before it is compared with the providers' ledger."""

    job: Job
    prompt: str
    seconds: float
    spooled: tuple[str, ...]
    log: str


class ForkServer:
    """The client of `tests.chaos.fork_server`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=servers.ROOT,
        )
        self._lock = threading.Lock()
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)

    @contextmanager
    def worker(self, environ: Mapping[str, str], log: Path) -> Iterator[int]:
        """Run a worker process during the block; yields its id."""
        pid = self._fork(environ, log)
        try:
            yield pid
        finally:
            kill(pid)

    def _fork(self, environ: Mapping[str, str], log: Path) -> int:
        with self._lock:
            assert self._process.stdin
            self._process.stdin.write(json.dumps({"environ": dict(environ), "log": str(log)}) + "\n")
            self._process.stdin.flush()
            return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the fork_server ended")
        return line


def lives(pid: int) -> bool:
    """Whether the process runs, which is not a child of ours."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int) -> None:
    """Send SIGKILL, unless the process is dead."""
    if lives(pid):
        os.kill(pid, 9)


class _Silent(WSGIRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Log nothing: the path of a callback holds its token."""


class Receivers:
    """One HTTP server for the callbacks of all cells: the first part of the path names the cell."""

    def __init__(self) -> None:
        self._apps: dict[str, Receiver] = {}
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Silent)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def add(self, name: str, darkroom: Darkroom, environ: Mapping[str, str]) -> None:
        """Serve one more cell."""
        self._apps[name] = create_app(darkroom.settings, environ=environ, threads=4)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for receiver in self._apps.values():
            receiver.close()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        name, _, rest = environ["PATH_INFO"].removeprefix("/").partition("/")
        answer: Iterable[bytes] = self._apps[name]({**environ, "PATH_INFO": f"/{rest}"}, start_response)
        return answer


@dataclass(frozen=True)
class KillPointRun:
    """The servers that all cells share, and the run of the cells."""

    folder: Path
    redis_url: str
    s3_url: str
    sandbox: Sandbox
    fork_server: ForkServer
    receivers: Receivers

    def run(self, cells: Sequence[Cell]) -> Mapping[str, CellResult | BaseException]:
        """Run the cells, many at once, and return the result or the error of each by its name."""
        with ThreadPoolExecutor(CONCURRENT_CELLS) as pool:
            # Two kills, or a deadline.
            slowest_first = sorted(
                enumerate(cells), key=lambda one: (len(one[1].points), -one[1].deadline_seconds), reverse=True
            )
            running = {cell.name: pool.submit(self._run_cell, number, cell) for number, cell in slowest_first}
        ends = {name: future.exception() or future.result() for name, future in running.items()}
        books, bucket = self.sandbox.submissions(), self._bucket()
        return {
            name: end if isinstance(end, BaseException) else _result(end, books, bucket) for name, end in ends.items()
        }

    def _run_cell(self, number: int, cell: Cell) -> CellRun:
        environ = self._environ(number, cell)
        log = self.folder / f"{number}.log"
        darkroom = servers.darkroom(environ)
        self.receivers.add(f"cell-{number}", darkroom, environ)
        prompt = f"kill point {number}"
        job = darkroom.enqueue(cell.scenario.request(prompt), deadline_seconds=cell.deadline_seconds)
        for point in cell.points:
            self._run_until_killed(cell, point, prompt, environ, log)
        died_at = time.monotonic()
        with self.fork_server.worker(environ, log):
            final = darkroom.wait(job.id, timeout=STEP_SECONDS)
            seconds = time.monotonic() - died_at
            spool = Path(environ["DARKROOM_SPOOL_DIR"])
            _await(lambda: not _files(spool), 5)
        return CellRun(final, prompt, seconds, _files(spool), log.read_text())

    def _run_until_killed(self, cell: Cell, point: str, prompt: str, environ: Mapping[str, str], log: Path) -> None:
        away = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"} if cell.storage_away else {}
        with self.fork_server.worker({**environ, **away, "CHAOS_KILL_AT": point}, log) as pid:
            if point == IN_FLIGHT:
                came = _await(lambda: any(one["prompt"] == prompt for one in self._ledger()), STEP_SECONDS)
            else:
                came = _await(lambda: not lives(pid), STEP_SECONDS)
            if not came:
                raise TimeoutError(f"{cell.name}: no worker reached {point!r}; see its log {log}")

    def _ledger(self) -> list[dict[str, Any]]:
        """The providers' ledger without digests, since those cost the rendering of each image."""
        found: list[dict[str, Any]] = httpx.get(f"{self.sandbox.url}/_sandbox/ledger?digests=0").json()["submissions"]
        return found

    def _bucket(self) -> Mapping[str, str]:
        """The SHA-256 in each object's metadata, by key."""
        client = servers.s3_client(self.s3_url)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=servers.BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: client.head_object(Bucket=servers.BUCKET, Key=key)["Metadata"]["sha256"] for key in keys}

    def _environ(self, number: int, cell: Cell) -> dict[str, str]:
        public = f"{self.receivers.url}/cell-{number}" if cell.scenario.calls_back else ""
        common = servers.environment(
            redis_url=f"{self.redis_url}/{number}",
            storage_url=f"s3://{servers.BUCKET}/cell-{number}",
            s3_url=self.s3_url,
            sandbox_url=self.sandbox.url,
            public_url=public,
            spool=self.folder / f"spool-{number}",
        )
        return {**common, **cell.scenario.environ}


def _result(cell_run: CellRun, books: Sequence[Mapping[str, Any]], bucket: Mapping[str, str]) -> CellResult:
    mine = [one for one in books if one["prompt"] == cell_run.prompt]
    charged = [one for one in mine if one["charged"] and not one["refunded"]]
    return CellResult(
        job=cell_run.job,
        charged=len(charged),
        submitted=len(mine),
        made=tuple(digest for one in charged for digest in one["images"]),
        stored={key: digest for key, digest in bucket.items() if cell_run.job.id in key},
        seconds=cell_run.seconds,
        spooled=cell_run.spooled,
        log=cell_run.log,
    )


def _files(folder: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in folder.rglob("*") if entry.is_file())


def _await(ready: Callable[[], bool], seconds: float) -> bool:
    give_up_at = time.monotonic() + seconds
    while not (done := ready()) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return done


@contextmanager
def kill_point_run(folder: Path, processes: Processes) -> Iterator[KillPointRun]:
    """Start the servers that all cells share; `processes` ends them."""
    redis_port, s3_port = free_port(), free_port()
    redis = processes.start(servers.redis(folder / "redis", redis_port, fsync="everysec", databases=len(CELLS)))
    s3 = processes.start(servers.s3(folder / "s3", s3_port))
    redis.await_ready(lambda: is_up(f"redis://127.0.0.1:{redis_port}/0"))
    s3.await_ready(lambda: servers.listens(s3_port))
    s3_url = f"http://127.0.0.1:{s3_port}"
    servers.s3_client(s3_url).create_bucket(Bucket=servers.BUCKET)
    receivers = Receivers()
    options = {"latency_seconds": LATENCY_SECONDS, "api_key": servers.KEY, "image_size": 64}
    try:
        with ForkServer() as fork_server, Sandbox(**options) as sandbox:
            sandbox.arm("callback-retries=20")
            yield KillPointRun(folder, f"redis://127.0.0.1:{redis_port}", s3_url, sandbox, fork_server, receivers)
    finally:
        receivers.close()
        for process in (s3, redis):
            processes.stop(process)
