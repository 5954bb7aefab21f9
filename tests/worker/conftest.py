"""A worker process assembled inside the test's own, with a real Redis, a folder and the sandbox in a thread."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from jobs import Job
from jobs.darkroom import Darkroom
from jobs.request import Request
from jobs.sandbox import Sandbox
from jobs.settings import Settings, enabled_providers
from worker import process as processes
from worker.process import Process
from worker.runner import Runner

T = TypeVar("T")


def drawn(color: str = "red", kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """A small image."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def draw() -> Callable[..., bytes]:
    """Draws a small image with a color, a format and a size."""
    return drawn


@pytest.fixture(scope="session")
def png() -> bytes:
    """A small PNG."""
    return drawn()


# A host of images -----------------------------------------------------------------------------------------------


@dataclass
class Host:
    """A web server whose pages a test sets: status, body and headers."""

    url: str
    pages: dict[str, tuple[int, bytes, Mapping[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        """Set a page, and return its URL."""
        self.pages[path] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return self.url + path

    def post(self, path: str, body: bytes, status: int = 200) -> None:
        """Set the answer to a POST, which is sent in chunks of unknown length."""
        self.pages[f"POST {path}"] = (status, body, {})


@pytest.fixture(scope="session")
def one_host() -> Iterator[Host]:
    host = Host("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.asked.append(self.path)
            status, body, headers = host.pages.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            host.asked.append(f"POST {self.path}")
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body, _ = host.pages[f"POST {self.path}"]
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        host.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield host
        server.shutdown()
        thread.join()


@pytest.fixture
def host(one_host: Host) -> Host:
    """A web server with no page yet."""
    one_host.pages.clear()
    one_host.asked.clear()
    return one_host


# Providers and a worker ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def one_sandbox() -> Iterator[Sandbox]:
    with Sandbox(image_size=96) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(one_sandbox: Sandbox) -> Sandbox:
    """The providers, with an empty ledger and no fault armed."""
    one_sandbox.reset()
    return one_sandbox


@dataclass
class WorkerHarness:
    """One worker process inside this one; its sweep runs only when a test says so."""

    process: Process
    steps: list[str]
    #: the step at which it crashes next
    crashes_at: str | None = None
    #: what is done at a step
    at: dict[str, Callable[[], Any]] = field(default_factory=dict)
    stopped: bool = False

    @property
    def darkroom(self) -> Darkroom:
        return self.process.darkroom

    @property
    def runner(self) -> Runner:
        return self.process.work.runner

    @property
    def holder(self) -> str:
        return self.process.holder

    def stop(self) -> None:
        """Stop the process; once."""
        if not self.stopped:
            self.stopped = True
            self.process.stop()

    def renew(self) -> None:
        """Renew the worker's lease."""
        with self.process.sweep.lease.renewal():
            self.darkroom.repository.tick(self.holder, {}, 0)

    def enqueue(self, request: Request, **options: Any) -> Job:
        return self.darkroom.enqueue(request, **options)

    def get(self, job: Job) -> Job:
        return self.darkroom.repository.get(job.id)

    def do(self, work: Awaitable[T]) -> T:
        """Run it on the worker's event loop."""

        async def worked() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(worked(), self.process.work.loop).result(timeout=30)

    def run(self, job: Job, runner: Runner | None = None) -> Job:
        """Do the next step of the job under a fresh lease, and return the job."""
        self.renew()
        self.do((runner or self.runner).run(job.id))
        return self.get(job)

    def attend(self, job: Job, *living: str) -> Job:
        """Act on a due job as the sweep does, while only these workers are alive, and return the job."""
        self.do(self.runner.attend(self.get(job), frozenset(living)))
        return self.get(job)

    def with_images(self, **parts: Any) -> Runner:
        """A runner whose image store has other parts, its storage for example."""
        return replace(self.runner, images=replace(self.runner.images, **parts))

    def without_keys(self) -> Runner:
        """A runner that has no provider's key."""
        return replace(self.runner, calls=replace(self.runner.calls, providers={}))


class Crashed(BaseException):
    """The worker process ended at this step."""


@pytest.fixture
def new_worker(redis_url: str, tmp_path: Path, sandbox: Sandbox) -> Iterator[Callable[..., WorkerHarness]]:
    """Assembles a worker with these settings, and with providers' settings from the environment."""
    made: list[WorkerHarness] = []

    def new(environ: Mapping[str, str] | None = None, **settings: Any) -> WorkerHarness:
        known = Settings(
            **{
                "redis_url": redis_url,
                "storage_url": f"file://{tmp_path}/pictures",
                "spool_dir": tmp_path / "spool",
                "secret_keys": "the-signing-secret",
                "allowed_private_networks": "127.0.0.0/8",
                "drain_seconds": 0,
                **settings,
            }
        )
        worker = WorkerHarness(None, [])  # type: ignore[arg-type]

        def checkpoint(step: str) -> None:
            worker.steps.append(step)
            worker.at.get(step, lambda: None)()
            if step == worker.crashes_at:
                raise Crashed(step)

        enabled = enabled_providers({**sandbox.environment, **(environ or {})})
        worker.process = processes.assemble(known, enabled, "test", checkpoint)
        worker.renew()
        made.append(worker)
        return worker

    yield new
    for worker in made:
        worker.stop()


@pytest.fixture
def worker(new_worker: Callable[..., WorkerHarness]) -> WorkerHarness:
    """A worker without a public URL: providers answer at once, or are polled."""
    return new_worker()
