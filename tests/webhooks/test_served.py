"""The receiver as it is served: a real granian process with few threads."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs.report import Code, Failed
from webhooks.callbacks import MAX_BYTES

THREADS = 4
SEATS = 3
RESULT = json.dumps({"images": [{"id": "a", "image_url": "https://pictures.example.com/a.png"}]})
AUTHORIZED = {"Authorization": "Bearer the-api-key-of-a-test"}


@pytest.fixture
def served(serve: Callable[..., Any]) -> Any:
    """One granian worker with four threads."""
    return serve(THREADS)


def test_whoever_waits_never_starves_a_callback(served: Any, jobs: Any) -> None:
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


def test_a_chunked_body_is_read_no_further_than_it_may_be_long(served: Any, jobs: Any) -> None:
    job = jobs.submitting()
    pieces = iter([b" " * (1 << 16)] * (MAX_BYTES // (1 << 16) + 1))

    status, headers, _ = served.ask("POST", jobs.callback_path(job), pieces)

    assert (status, headers["Content-Type"]) == (413, "application/problem+json")
    assert jobs.get(job) == job


def test_many_threads_at_once_keep_every_callback(served: Any, jobs: Any) -> None:
    called = [jobs.submitting() for _ in range(40)]

    with ThreadPoolExecutor(8) as vendors:
        repeated = [job for job in called for _ in range(3)]
        statuses = list(vendors.map(lambda job: served.ask("POST", jobs.callback_path(job), RESULT)[0], repeated))

    assert statuses == [200] * len(repeated)
    assert {jobs.get(job).status for job in called} == {"storing"}


def test_what_it_prints_holds_no_token(served: Any, jobs: Any, redis: Any) -> None:
    job = jobs.submitting()
    path = jobs.callback_path(job)
    redis.set(f"darkroom:job:{job.id}", b"1.1.x not a record")

    assert served.ask("POST", path, RESULT)[0] == 500

    assert " failed: " in served.process.log_tail(200)
    assert path.rpartition("/")[2] not in served.process.log_tail(200)
