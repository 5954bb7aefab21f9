"""What a worker logs: one line for each step of a job, readable by people and by machines, and no noise."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import Status, logs
from jobs.darkroom import Darkroom
from jobs.embedded import Command, Processes
from jobs.providers import aimlapi, chainhub, deepmode
from jobs.sandbox import Sandbox
from jobs.settings import Settings

Events = Callable[[], list[dict[str, Any]]]


def reve(png: bytes) -> aimlapi.ReveRemix:
    return aimlapi.ReveRemix(image_urls=[png], prompt="a canary sings")


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[Events]:
    """The events that were logged, as JSON has them."""
    formatter = logs.JSONFormatter()
    with caplog.at_level(logging.INFO, "darkroom"):
        yield lambda: [json.loads(formatter.format(record)) for record in caplog.records if record.name == "darkroom"]


def test_each_step_of_a_job_is_one_event(worker: Any, png: bytes, events: Events) -> None:
    job = worker.run(worker.enqueue(reve(png)))
    assert job.status is Status.SUCCEEDED
    claimed, sent, answered, tried, stored, ended = events()
    for event in events():
        assert (event["job"], event["attempt"], event["operation"]) == (job.id, 1, "aimlapi.reve-remix")
    assert (claimed["message"], claimed["status"]) == ("job claimed", "queued")
    assert (sent["message"], sent["attempt"], sent["operation"]) == ("job sent", 1, "aimlapi.reve-remix")
    assert (answered["message"], answered["outcome"], answered["charged"]) == ("job answered", "succeeded", "yes")
    cost = job.attempts[0].cost
    assert (answered["cost"], answered["cost_unit"], answered["duration_seconds"] >= 0) == (
        cost.amount,
        cost.unit,
        True,
    )
    assert (tried["message"], tried["outcome"], tried["image"]) == ("image tried", "stored", 0)
    assert (stored["message"], stored["images"], stored["status"]) == ("job stored", 1, "succeeded")
    assert stored["outcome"] == "stored"
    assert (ended["message"], ended["status"], ended["level"]) == ("job ended", "succeeded", "info")
    assert (ended["cost"], ended["charged"]) == (answered["cost"], "yes")


def test_a_failed_job_is_a_warning_with_code_provider_and_cost(
    worker: Any, sandbox: Sandbox, png: bytes, events: Events
) -> None:
    sandbox.arm("drop@deepmode*1")
    face = {"identity_image": png, "artwork_image": png, "mask_image": png, "prompt": "a canary sings"}
    job = worker.run(worker.enqueue(deepmode.FaceIdRemix(**face)))
    *_, answered, ended = events()
    assert (answered["outcome"], answered["charged"]) == ("unknown", "unknown")
    assert (ended["message"], ended["level"], ended["job"]) == ("job ended", "warning", job.id)
    assert (ended["code"], ended["provider"], ended["charged"]) == ("outcome_unknown", "deepmode", "unknown")
    assert (ended["cost"], ended["cost_unit"]) == (1.0, "credit")


def test_a_retry_says_why_and_when(worker: Any, sandbox: Sandbox, png: bytes, events: Events) -> None:
    sandbox.arm("503@aimlapi*1")
    job = worker.run(worker.enqueue(reve(png)))
    *_, retried = events()
    assert (retried["message"], retried["attempt"], retried["code"]) == ("job retried", 1, "provider_error")
    assert retried["until"] == f"{job.wake_at:%Y-%m-%dT%H:%M:%S}.{job.wake_at.microsecond // 1000:03}Z"


def test_a_postponed_image_says_why_and_until_when(worker: Any, sandbox: Sandbox, png: bytes, events: Events) -> None:
    sandbox.arm("result-500@aimlapi*1")
    worker.run(worker.enqueue(reve(png)))
    (postponed,) = [event for event in events() if event["message"] == "image tried"]
    assert (postponed["outcome"], postponed["level"]) == ("postponed", "warning")
    assert postponed["reason"] == "the image's host answered 500"
    assert postponed["until"].endswith("Z")


def test_a_job_without_its_input_says_why(worker: Any, host: Any, events: Events) -> None:
    worker.run(worker.enqueue(chainhub.IdeogramRemix(image_file=host.url + "/gone.png", prompt="a canary sings")))
    failed = next(event for event in events() if event["message"] == "input failed")
    assert "its host answered 404" in failed["reason"]


@pytest.mark.parametrize(
    ("log_format", "options"), [("text", ()), ("json", ()), ("json", ("--loglevel", "INFO"))], ids=str
)
def test_a_plain_worker_shows_its_events_and_no_noise(
    processes: Processes,
    redis_url: str,
    sandbox: Sandbox,
    png: bytes,
    tmp_path: Path,
    log_format: str,
    options: tuple[str, ...],
) -> None:
    environ = {
        **sandbox.environment,
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_STORAGE_URL": f"file://{tmp_path}",
        "DARKROOM_SPOOL_DIR": str(tmp_path / "spool"),
        "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "DARKROOM_PUBLIC_URL": "http://127.0.0.1:9",
        "DARKROOM_SECRET_KEYS": "canary-secret",
        "DARKROOM_LOG_FORMAT": log_format,
    }
    arguments = [sys.executable, "-m", "celery", "-A", "worker", "worker", *options]
    process = processes.start(Command(f"worker-log-{log_format}", arguments, environ, tmp_path))
    darkroom = Darkroom.open(Settings(redis_url=redis_url, storage_url=f"file://{tmp_path}"))
    try:
        job = darkroom.wait(darkroom.enqueue(reve(png)).id, 40)
    finally:
        processes.stop(process)
        darkroom.close()
    lines = [line for line in process.log.read_text().splitlines() if job.id in line]
    assert len(lines) == 6
    assert "canary" not in process.log.read_text()
    assert "succeeded in" not in process.log.read_text()
    if log_format == "json":
        # Everything, also what Celery prints at its start and on SIGTERM.
        shown = [json.loads(line) for line in process.log.read_text().splitlines()]
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in shown)
        assert [line["message"] for line in shown if line.get("job") == job.id][-1] == "job ended"
    else:
        assert "INFO darkroom job ended job=" in lines[-1]
