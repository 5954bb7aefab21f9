"""The receiver as it is served: a real granian process with few threads."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs import logs
from jobs.report import Code, Failed
from webhooks.callbacks import MAX_BYTES

THREADS = 4
MAY_WAIT = 3
RESULT = json.dumps({"images": [{"id": "a", "image_url": "https://pictures.example.com/a.png"}]})
AUTHORIZED = {"Authorization": "Bearer the-api-key-of-a-test"}


@pytest.fixture
def served(serve: Callable[..., Any]) -> Any:
    """One granian worker with four threads."""
    return serve(THREADS)


def test_waiting_clients_never_starve_callbacks(served: Any, jobs: Any) -> None:
    awaited = jobs.submitting()
    called = [jobs.submitting() for _ in range(20)]

    def wait() -> tuple[bool, str]:
        _, headers, body = served.ask("GET", f"/v1/jobs/{awaited.id}", headers={**AUTHORIZED, "Prefer": "wait=60"})
        return "Preference-Applied" in headers, json.loads(body)["status"]

    with ThreadPoolExecutor(12) as clients:
        waiting = [clients.submit(wait) for _ in range(12)]
        while sum(one.done() for one in waiting) < 12 - MAY_WAIT:
            time.sleep(0.05)
        statuses = [served.ask("POST", jobs.callback_path(job), RESULT)[0] for job in called]
        still_waiting = sum(not one.done() for one in waiting)
        jobs.reported(awaited, Failed(Code.MODERATED, "no"))
        answers = [one.result() for one in waiting]

    assert statuses == [200] * len(called)
    assert still_waiting == MAY_WAIT
    assert sorted(answers) == [(False, "submitting")] * (12 - MAY_WAIT) + [(True, "failed")] * MAY_WAIT


def test_a_chunked_body_is_read_up_to_its_limit(served: Any, jobs: Any) -> None:
    job = jobs.submitting()
    pieces = iter([b" " * (1 << 16)] * (MAX_BYTES // (1 << 16) + 1))

    status, headers, _ = served.ask("POST", jobs.callback_path(job), pieces)

    assert (status, headers["Content-Type"]) == (413, "application/problem+json")
    assert jobs.get(job) == job


def test_many_threads_apply_every_callback(served: Any, jobs: Any) -> None:
    called = [jobs.submitting() for _ in range(40)]

    with ThreadPoolExecutor(8) as clients:
        repeated = [job for job in called for _ in range(3)]
        statuses = list(clients.map(lambda job: served.ask("POST", jobs.callback_path(job), RESULT)[0], repeated))

    assert statuses == [200] * len(repeated)
    assert {jobs.get(job).status for job in called} == {"storing"}


def test_its_output_contains_no_token(served: Any, jobs: Any, redis: Any) -> None:
    job = jobs.submitting()
    path = jobs.callback_path(job)
    record = redis.get(f"darkroom:job:{job.id}")
    redis.set(f"darkroom:job:{job.id}", record.replace(job.operation.encode(), b"deepmode.unheard-of"))

    assert served.ask("POST", path, RESULT)[0] == 500

    assert " failed: " in served.process.log_tail(200)
    assert path.rpartition("/")[2] not in served.process.log_tail(200)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_everything_that_it_logs_has_the_form_that_was_asked_for(
    serve: Callable[..., Any], jobs: Any, log_format: str
) -> None:
    served = serve(THREADS, "--log-config", str(logs.GRANIAN_CONFIG), DARKROOM_LOG_FORMAT=log_format)
    job = jobs.submitting()
    assert served.ask("POST", jobs.callback_path(job), RESULT)[0] == 200
    assert served.ask("POST", "/webhooks/deepmode/canary-token", RESULT)[0] == 403
    served.process.stop()
    lines = served.process.log.read_text().splitlines()
    if log_format == "text":
        assert [line for line in lines if not re.match(r"[0-9-]{10} [0-9:,]{12} [A-Z]+ [\w.]+ \S", line)] == []
    else:
        assert [line for line in lines if not line.startswith("{")] == []
        shown = [json.loads(line) for line in lines]
        assert {line["logger"].partition(".")[0] for line in shown} == {"_granian", "darkroom"}
        (accepted,) = [line for line in shown if line["message"] == "callback accepted"]
        assert (accepted["job"], accepted["attempt"], accepted["operation"]) == (job.id, 1, job.operation)
    assert "canary" not in "".join(lines)
