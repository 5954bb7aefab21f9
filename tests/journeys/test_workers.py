"""Workers as processes: two at once, doubled and lost messages, the end by SIGTERM, bad settings, and Flower beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jobs import Code, Outcome, Status
from jobs.embedded import Command, Process, Processes
from jobs.providers import aimlapi, deepmode

pytestmark = pytest.mark.journey


def reve(picture: bytes, prompt: str) -> aimlapi.ReveRemix:
    return aimlapi.ReveRemix(image_urls=[picture], prompt=prompt)


def ended(process: Process, wait_until: Any, seconds: float = 20) -> int:
    """Send SIGTERM, and return the exit status once the process has ended by itself."""
    os.kill(process.pid, signal.SIGTERM)
    wait_until(lambda: not process.is_alive, f"the end of {process.name}", seconds)
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT).si_status


@pytest.fixture(scope="module")
def pair(sites: Any, bucket: Any) -> Any:
    """A site with two workers without DeepMode's key; before they start, the broker doubles some messages and loses others."""
    return sites.new("pair", {"DEEPMODE_API_KEY": ""}, storage=bucket.storage())


@pytest.fixture(scope="module")
def early(pair: Any, picture: bytes) -> dict[str, Any]:
    """Jobs that were enqueued before both workers start."""
    lost = pair.darkroom.enqueue(reve(picture, "its message is lost"))
    assert pair.redis.delete("darkroom.aimlapi") == 1
    doubled = pair.darkroom.enqueue(reve(picture, "a hundred messages"))
    message = pair.darkroom.dispatch.message(doubled)
    pair.redis.lpush(message.queue, *[message.body] * 99)
    assert pair.redis.llen(message.queue) == 100
    crowd = [pair.darkroom.enqueue(reve(picture, f"one of a crowd, {place}")) for place in range(10)]
    unserved = pair.darkroom.enqueue(deepmode.Generate(model_id="m", prompt="nobody serves it"), deadline_seconds=8)
    workers = [pair.start_worker("one"), pair.start_worker("two")]
    pair.await_workers(workers[1], 2)
    return {
        "lost": lost,
        "doubled": doubled,
        "crowd": crowd,
        "unserved": unserved,
        "workers": workers,
        "message": message.body,
    }


def test_a_message_a_hundred_times_is_one_submission(pair: Any, early: dict[str, Any], wait_until: Any) -> None:
    job = pair.wait(early["doubled"])
    wait_until(lambda: pair.redis.llen("darkroom.aimlapi") == 0, "the messages to be taken")
    assert job.status is Status.SUCCEEDED
    assert len(pair.vendors.submissions("a hundred messages")) == 1


def test_a_message_for_a_final_job_changes_nothing(pair: Any, early: dict[str, Any], wait_until: Any) -> None:
    job = pair.wait(early["doubled"])
    known = pair.darkroom.repository.get(job.id)
    pair.redis.lpush("darkroom.aimlapi", *[early["message"]] * 100)
    wait_until(lambda: pair.redis.llen("darkroom.aimlapi") == 0, "the messages to be taken")
    assert pair.darkroom.repository.get(job.id).version == known.version


def test_two_workers_share_jobs_and_none_is_submitted_twice(pair: Any, early: dict[str, Any]) -> None:
    jobs = [pair.wait(job) for job in early["crowd"]]
    assert {job.status for job in jobs} == {Status.SUCCEEDED}
    for job in jobs:
        assert len(pair.vendors.submissions(job.params["prompt"])) == 1
    holders = {attempt.holder for job in jobs for attempt in job.attempts}
    assert holders <= set(pair.darkroom.repository.workers())


def test_a_job_whose_message_was_lost_runs_anyway(pair: Any, early: dict[str, Any]) -> None:
    assert pair.wait(early["lost"]).status is Status.SUCCEEDED
    assert len(pair.vendors.submissions("its message is lost")) == 1


def test_a_job_that_no_worker_serves_waits_and_ends_at_its_deadline(pair: Any, early: dict[str, Any]) -> None:
    assert "deepmode.generate" not in pair.darkroom.repository.served_operations()
    job = pair.wait(early["unserved"])
    assert (job.status, job.error.code) == (Status.FAILED, Code.DEADLINE)
    assert job.attempts == ()


@pytest.fixture
def flower(pair: Any, early: dict[str, Any], processes: Processes, free_port: int) -> Iterator[str]:
    """Flower with its defaults, beside the workers."""
    arguments = ["-m", "celery", "-A", "worker", "flower", f"--port={free_port}", "--address=127.0.0.1"]
    environ = {**pair.environ, "FLOWER_UNAUTHENTICATED_API": "true"}
    process = processes.start(Command("flower", [sys.executable, *arguments], environ, pair.folder))
    url = f"http://127.0.0.1:{free_port}"
    process.await_ready(lambda: _tasks(url) is not None)
    yield url
    processes.stop(process)


def _tasks(url: str) -> dict[str, Any] | None:
    try:
        answer = httpx.get(f"{url}/api/tasks", trust_env=False, timeout=5)
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def test_flower_unchanged_shows_the_tasks(pair: Any, picture: bytes, flower: str, wait_until: Any) -> None:
    jobs: list[str] = []

    def seen() -> bool:
        # Flower answers before it listens to events, so that it may miss the first tasks.
        jobs.append(pair.run(reve(picture, f"seen by Flower, {len(jobs)}")).id)
        return any(task["state"] == "SUCCESS" for task in (_tasks(flower) or {}).values())

    wait_until(seen, "Flower to show a task")
    name, task = (_tasks(flower) or {}).popitem()
    assert name in jobs
    assert task["name"] == "darkroom.run"
    assert name in task["args"]


def test_a_warm_shutdown_finishes_what_is_in_flight(
    pair: Any, early: dict[str, Any], picture: bytes, wait_until: Any
) -> None:
    pair.vendors.arm("latency=2.5@aimlapi*4")
    jobs = [pair.darkroom.enqueue(reve(picture, f"slow, {place}")) for place in range(4)]
    wait_until(lambda: all(_status(pair, job) is Status.SUBMITTING for job in jobs), "all to be on their way")
    assert [ended(worker, wait_until) for worker in early["workers"]] == [0, 0]
    for job in jobs:
        final = pair.darkroom.get(job.id)
        assert final.status is Status.SUCCEEDED, final.timeline
        assert len(pair.vendors.submissions(job.params["prompt"])) == 1
    assert dict(pair.darkroom.repository.workers()) == {}
    assert pair.redis.keys("darkroom:held:*") == []


def test_a_drain_that_is_too_short_leaves_an_unknown_outcome_and_loses_no_job(
    sites: Any, bucket: Any, picture: bytes, wait_until: Any
) -> None:
    site = sites.new("hasty", {"DARKROOM_DRAIN_SECONDS": "0.3"}, storage=bucket.storage())
    worker = site.start_worker()
    site.await_workers(worker)
    site.vendors.arm("latency=8@aimlapi*2")
    lost = site.darkroom.enqueue(reve(picture, "drained, marked"))
    again = site.darkroom.enqueue(reve(picture, "drained, sent again"), on_unknown="charge_again")
    wait_until(lambda: all(_status(site, job) is Status.SUBMITTING for job in (lost, again)), "both to be on their way")
    assert ended(worker, wait_until, 8) == 0
    job = site.darkroom.get(lost.id)
    assert (job.status, job.error.code) == (Status.FAILED, Code.OUTCOME_UNKNOWN)
    assert job.attempts[0].outcome is Outcome.UNKNOWN
    assert _status(site, again) is Status.QUEUED
    assert dict(site.darkroom.repository.workers()) == {}
    site.processes.stop(worker)
    following = site.start_worker("next")
    try:
        site.await_workers(following)
        assert site.wait(again).status is Status.SUCCEEDED
    finally:
        site.processes.stop(following)


NO_KEYS = dict.fromkeys(("DEEPMODE_API_KEY", "CHAINHUB_API_KEY", "PHOTA_API_KEY", "AIMLAPI_API_KEY"), "")


def test_a_worker_that_cannot_work_stops_at_once_and_says_why(pair: Any) -> None:
    told = {
        "_API_KEY=your-secret-key": _starting(pair, NO_KEYS),
        "DARKROOM_DRAIN_SECONDS=30": _starting(pair, {"DARKROOM_DRAIN_SECONDS": "soon"}),
        "start the worker without -P": _starting(pair, {}, "-P", "processes"),
    }
    for said, starting in told.items():
        _, complaint = starting.communicate(timeout=45)
        assert starting.returncode not in (0, None), said
        assert said in complaint
        assert "Traceback" not in complaint


def _starting(site: Any, given: dict[str, str], *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "worker", "worker", *options],
        env={**os.environ, **site.environ, **given},
        cwd=site.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _status(site: Any, job: Any) -> Status:
    return site.darkroom.repository.get(job.id).status
