"""A worker dies at a named step, another one finds what it held: what became of the job, the money and the pictures.

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
from .scenarios import GENERATE, IDEOGRAM_POLL, PHOTA_ASYNC, PHOTA_URLS, REVE_BYTES, Kind

#: how long a synchronous vendor works, and for how long a callback's or a poll's result is not there
LATENCY_SECONDS = 1.0
#: cells that run at once
AT_ONCE = 16
#: no step of the worker's: the vendor has the request, the worker has no answer
UNDER_WAY = "under way"
#: nobody can know the end of an attempt that may never have left us but by waiting: such cells wait for this deadline
SHORT_DEADLINE_SECONDS = 14.0
DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class Expected:
    """What must become of the job."""

    status: str = "succeeded"
    code: str = ""
    charges: int = 1


STORED = Expected()
UNKNOWN_PAID = Expected("failed", "outcome_unknown", 1)
UNKNOWN_FREE = Expected("failed", "outcome_unknown", 0)
WAITED_FOR = Expected("failed", "deadline", 0)


@dataclass(frozen=True)
class Cell:
    """One kind of operation whose workers die at these steps, one after the other."""

    kind: Kind
    points: tuple[str, ...]
    expected: Expected
    #: whether the storage is away for all but the last worker
    storage_away: bool = False

    @property
    def name(self) -> str:
        away = ", storage away" if self.storage_away else ""
        return f"{self.kind.name}{away}: {' then '.join(self.points)}"

    @property
    def deadline_seconds(self) -> float:
        return SHORT_DEADLINE_SECONDS if self.expected is WAITED_FOR else DEADLINE_SECONDS


def _cells(kind: Kind, expected: Mapping[str, Expected], **options: Any) -> list[Cell]:
    return [Cell(kind, (point,), end, **options) for point, end in expected.items()]


#: From "on the ledger" until what the answer said has been kept, an attempt's end is unknown, unless the vendor has other
#: ways to tell it; before and after, nothing is.
CELLS: Sequence[Cell] = (
    *_cells(
        PHOTA_URLS,
        {
            "claimed": STORED,
            "prepared": STORED,
            "on the ledger": UNKNOWN_FREE,
            UNDER_WAY: UNKNOWN_PAID,
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
            UNDER_WAY: UNKNOWN_PAID,
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
            "on the ledger": WAITED_FOR,
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
class Told:
    """What became of one cell."""

    job: Job
    #: charged submissions in the vendors' books, and all that reached them
    charged: int
    submitted: int
    #: digests of the images that the vendor made
    made: tuple[str, ...]
    #: digests of what lies in the bucket, by key
    stored: Mapping[str, str]
    #: from the last kill to the final status
    seconds: float
    #: files that were left in the spool
    spooled: tuple[str, ...] = ()
    log: str = field(default="", repr=False)


@dataclass(frozen=True)
class Played:
    """How one cell ended, before the books were looked at."""

    job: Job
    prompt: str
    seconds: float
    spooled: tuple[str, ...]
    log: str


class Nursery:
    """Forks workers."""

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
        """A worker process; the value is its id."""
        pid = self._forked(environ, log)
        try:
            yield pid
        finally:
            kill(pid)

    def _forked(self, environ: Mapping[str, str], log: Path) -> int:
        with self._lock:
            assert self._process.stdin
            self._process.stdin.write(json.dumps({"environ": dict(environ), "log": str(log)}) + "\n")
            self._process.stdin.flush()
            return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the nursery ended")
        return line


def lives(pid: int) -> bool:
    """Whether a process runs that is not our child."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int) -> None:
    """SIGKILL, unless it is dead."""
    if lives(pid):
        os.kill(pid, 9)


class _Silent(WSGIRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """The path of a callback holds its token."""


class Receivers:
    """One HTTP server for the callbacks of all cells: the first part of the path names the cell."""

    def __init__(self) -> None:
        self._apps: dict[str, Receiver] = {}
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Silent)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def add(self, name: str, darkroom: Darkroom, environ: Mapping[str, str]) -> None:
        """Serves one more cell."""
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
class Theater:
    """Everything that the cells share."""

    folder: Path
    redis_url: str
    s3_url: str
    sandbox: Sandbox
    nursery: Nursery
    receivers: Receivers

    def played(self, cells: Sequence[Cell]) -> Mapping[str, Told | BaseException]:
        """What became of each cell, by name; many run at once."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            # The slowest first: two deaths, or a deadline.
            order = sorted(
                enumerate(cells), key=lambda one: (len(one[1].points), -one[1].deadline_seconds), reverse=True
            )
            running = {cell.name: pool.submit(self._played, number, cell) for number, cell in order}
        ends = {name: future.exception() or future.result() for name, future in running.items()}
        books, bucket = self.sandbox.submissions(), self._bucket()
        return {
            name: end if isinstance(end, BaseException) else _told(end, books, bucket) for name, end in ends.items()
        }

    def _played(self, number: int, cell: Cell) -> Played:
        environ = self._environ(number, cell)
        log = self.folder / f"{number}.log"
        darkroom = servers.darkroom(environ)
        self.receivers.add(f"cell-{number}", darkroom, environ)
        prompt = f"kill point {number}"
        job = darkroom.enqueue(cell.kind.request(prompt), deadline_seconds=cell.deadline_seconds)
        for point in cell.points:
            self._die(cell, point, prompt, environ, log)
        died_at = time.monotonic()
        with self.nursery.worker(environ, log):
            final = darkroom.wait(job.id, timeout=60)
            seconds = time.monotonic() - died_at
            spool = Path(environ["DARKROOM_SPOOL_DIR"])
            _await(lambda: not _files(spool), 5)
        return Played(final, prompt, seconds, _files(spool), log.read_text())

    def _die(self, cell: Cell, point: str, prompt: str, environ: Mapping[str, str], log: Path) -> None:
        away = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"} if cell.storage_away else {}
        with self.nursery.worker({**environ, **away, "CHAOS_KILL_AT": point}, log) as pid:
            if point == UNDER_WAY:
                came = _await(lambda: any(one["prompt"] == prompt for one in self._ledger()), 45)
            else:
                came = _await(lambda: not lives(pid), 45)
            if not came:
                raise TimeoutError(f"{cell.name}: no worker came to {point!r}; its log is {log}")

    def _ledger(self) -> list[dict[str, Any]]:
        """The vendors' books without the digests, which cost the drawing of each picture."""
        found: list[dict[str, Any]] = httpx.get(f"{self.sandbox.url}/_sandbox/ledger?digests=0").json()["submissions"]
        return found

    def _bucket(self) -> Mapping[str, str]:
        """What lies in the bucket: the digest that each object's metadata tells, by key."""
        client = servers.s3_client(self.s3_url)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=servers.BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: client.head_object(Bucket=servers.BUCKET, Key=key)["Metadata"]["sha256"] for key in keys}

    def _environ(self, number: int, cell: Cell) -> dict[str, str]:
        public = f"{self.receivers.url}/cell-{number}" if cell.kind.calls_back else ""
        common = servers.environment(
            redis_url=f"{self.redis_url}/{number}",
            storage_url=f"s3://{servers.BUCKET}/cell-{number}",
            s3_url=self.s3_url,
            sandbox_url=self.sandbox.url,
            public_url=public,
            spool=self.folder / f"spool-{number}",
        )
        return {**common, **cell.kind.environ}


def _told(played: Played, books: Sequence[Mapping[str, Any]], bucket: Mapping[str, str]) -> Told:
    mine = [one for one in books if one["prompt"] == played.prompt]
    charged = [one for one in mine if one["charged"] and not one["refunded"]]
    return Told(
        job=played.job,
        charged=len(charged),
        submitted=len(mine),
        made=tuple(digest for one in charged for digest in one["images"]),
        stored={key: digest for key, digest in bucket.items() if played.job.id in key},
        seconds=played.seconds,
        spooled=played.spooled,
        log=played.log,
    )


def _files(folder: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in folder.rglob("*") if entry.is_file())


def _await(ready: Callable[[], bool], seconds: float) -> bool:
    give_up_at = time.monotonic() + seconds
    while not (done := ready()) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return done


@contextmanager
def theater(folder: Path, processes: Processes) -> Iterator[Theater]:
    """The servers that all cells share; `processes` ends what is started."""
    redis_port, s3_port = free_port(), free_port()
    redis = processes.start(servers.redis(folder / "redis", redis_port, fsync="everysec", databases=len(CELLS)))
    s3 = processes.start(servers.s3(folder / "s3", s3_port))
    redis.await_ready(lambda: is_up(f"redis://127.0.0.1:{redis_port}/0"))
    s3.await_ready(lambda: servers.listens(s3_port))
    s3_url = f"http://127.0.0.1:{s3_port}"
    servers.s3_client(s3_url).create_bucket(Bucket=servers.BUCKET)
    receivers = Receivers()
    options = {"latency_seconds": LATENCY_SECONDS, "api_key": servers.KEY, "picture_size": 64}
    try:
        with Nursery() as nursery, Sandbox(**options) as sandbox:
            sandbox.arm("callback-retries=20")
            yield Theater(folder, f"redis://127.0.0.1:{redis_port}", s3_url, sandbox, nursery, receivers)
    finally:
        receivers.close()
        for process in (s3, redis):
            processes.stop(process)
