"""The receiver as it is served: a real granian process with few threads."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.embedded import Command, Process, Processes
from jobs.report import Code, Failed
from jobs.settings import Settings
from webhooks.callbacks import MAX_BYTES

THREADS = 4
SEATS = 3
RESULT = json.dumps({"images": [{"id": "a", "image_url": "https://pictures.example.com/a.png"}]})
AUTHORIZED = {"Authorization": "Bearer the-api-key-of-a-test"}


@dataclass(frozen=True)
class Served:
    """The address of a receiver, and its process."""

    port: int
    process: Process

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """One exchange on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}), encode_chunked=not isinstance(body, str))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def lives(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.ask("GET", "/healthz")[0] == 200)
        except OSError:
            return False


@pytest.fixture
def served(processes: Processes, free_port: int, settings: Settings, tmp_path: Path) -> Iterator[Served]:
    """One granian worker with four threads."""
    arguments = [sys.executable, "-m", "granian", "--interface", "wsgi", "--factory", "webhooks:create_app"]
    environ = {
        "GRANIAN_BLOCKING_THREADS": str(THREADS),
        "DARKROOM_REDIS_URL": settings.redis_url,
        "DARKROOM_STORAGE_URL": settings.storage_url,
        "DARKROOM_PUBLIC_URL": settings.public_url,
        "DARKROOM_SECRET_KEYS": "the-signing-secret",
        "DARKROOM_API_KEYS": "the-api-key-of-a-test",
    }
    options = ["--host", "127.0.0.1", "--port", str(free_port)]
    process = processes.start(Command("receiver", [*arguments, *options], environ, Path(__file__).parents[2]))
    receiver = Served(free_port, process)
    try:
        process.await_ready(receiver.lives)
        yield receiver
    finally:
        processes.stop(process)


def test_whoever_waits_never_starves_a_callback(served: Served, jobs: Any) -> None:
    awaited = jobs.submitting()
    called = [jobs.submitting() for _ in range(20)]

    def wait() -> tuple[bool, str]:
        _, headers, body = served.ask("GET", f"/v1/jobs/{awaited.id}", headers={**AUTHORIZED, "Prefer": "wait=10"})
        return "Preference-Applied" in headers, json.loads(body)["status"]

    with ThreadPoolExecutor(12) as clients:
        waiting = [clients.submit(wait) for _ in range(12)]
        time.sleep(0.5)
        started = time.monotonic()
        statuses = [served.ask("POST", jobs.callback_path(job), RESULT)[0] for job in called]
        took = time.monotonic() - started
        jobs.reported(awaited, Failed(Code.MODERATED, "no"))
        answers = [one.result() for one in waiting]

    assert statuses == [200] * len(called)
    assert took < 3
    assert sorted(answers) == [(False, "submitting")] * (12 - SEATS) + [(True, "failed")] * SEATS


def test_a_chunked_body_is_read_no_further_than_it_may_be_long(served: Served, jobs: Any) -> None:
    job = jobs.submitting()
    pieces = iter([b" " * (1 << 16)] * (MAX_BYTES // (1 << 16) + 1))

    status, headers, _ = served.ask("POST", jobs.callback_path(job), pieces)

    assert (status, headers["Content-Type"]) == (413, "application/problem+json")
    assert jobs.get(job) == job


def test_many_threads_at_once_keep_every_callback(served: Served, jobs: Any) -> None:
    called = [jobs.submitting() for _ in range(40)]

    with ThreadPoolExecutor(8) as vendors:
        repeated = [job for job in called for _ in range(3)]
        statuses = list(vendors.map(lambda job: served.ask("POST", jobs.callback_path(job), RESULT)[0], repeated))

    assert statuses == [200] * len(repeated)
    assert {jobs.get(job).status for job in called} == {"storing"}


def test_what_it_prints_holds_no_token(served: Served, jobs: Any, redis: Any) -> None:
    job = jobs.submitting()
    path = jobs.callback_path(job)
    redis.set(f"darkroom:job:{job.id}", b"1.1.x not a record")

    assert served.ask("POST", path, RESULT)[0] == 500

    assert " failed: " in served.process.last_words(200)
    assert path.rpartition("/")[2] not in served.process.last_words(200)
