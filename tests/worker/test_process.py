"""One worker process: what it refuses to start with, what it works on, and how it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as Solo
from celery.concurrency.thread import TaskPool as Threads

from jobs import Code, SettingsError, Status, transitions
from jobs.providers import aimlapi
from jobs.settings import Settings, enabled_providers
from worker import process
from worker.celery import DarkroomStep, app


def reve(png: bytes, prompt: str = "a mug") -> aimlapi.ReveRemix:
    return aimlapi.ReveRemix(image_urls=[png], prompt=prompt)


# Settings ---------------------------------------------------------------------------------------------------------


def test_without_any_providers_key_there_is_nothing_to_work_for() -> None:
    with pytest.raises(SettingsError, match=r"_API_KEY.*for example \w+_API_KEY=") as raised:
        process.check(Settings(), enabled_providers({}))
    assert "DEEPMODE_API_KEY" in str(raised.value)


def test_a_public_url_needs_a_secret_to_sign_with() -> None:
    with pytest.raises(SettingsError, match="DARKROOM_SECRET_KEYS=a-long-random-string"):
        process.check(Settings(public_url="https://example.com"), enabled_providers({"PHOTA_API_KEY": "x"}))


def test_without_a_public_url_it_says_that_nothing_can_call_back(caplog: pytest.LogCaptureFixture) -> None:
    process.check(Settings(), enabled_providers({"PHOTA_API_KEY": "x"}))
    assert "DARKROOM_PUBLIC_URL is not set" in caplog.text


@pytest.mark.parametrize("pool", [Threads, Solo])
def test_a_pool_within_the_process_is_taken(pool: type) -> None:
    DarkroomStep(SimpleNamespace(pool_cls=pool))


def test_a_pool_of_other_processes_stops_the_worker() -> None:
    with pytest.raises(SystemExit, match="without -P"):
        DarkroomStep(SimpleNamespace(pool_cls=Prefork))


def test_the_defaults_are_right_for_a_plain_start() -> None:
    assert (app.conf.worker_pool, app.conf.worker_concurrency) == ("threads", 1)
    assert app.conf.broker_transport_options["ack_emulation"] is False
    assert app.conf.task_acks_late is False
    assert app.conf.worker_send_task_events is True
    assert app.conf.beat_schedule == {}


def test_a_task_before_the_process_started_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        process.run_when_free("0" * 32)


# Work -------------------------------------------------------------------------------------------------------------


def until(true: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + 10
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_an_admitted_job_is_run_and_its_slot_freed(worker: Any, png: bytes) -> None:
    job = worker.enqueue(reve(png))
    worker.process.work.run_when_free(job.id)
    until(lambda: worker.get(job).status is Status.SUCCEEDED and not worker.process.work.in_progress)


def test_a_job_that_raises_is_logged_and_gives_its_slot_back(worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise ValueError("a mistake of ours")

    work = worker.process.work
    work.running.acquire("a-job", wait=False)
    with caplog.at_level(logging.ERROR):
        work._spawn("a-job", work.running, broken())
        until(lambda: not work.in_progress)
    assert "a-job" in caplog.text
    assert "a mistake of ours" in caplog.text


def test_calls_run_beside_each_other_in_one_process(new_worker: Any, png: bytes, sandbox: Any) -> None:
    worker = new_worker()
    sandbox.arm("latency=0.5@aimlapi*20")
    jobs = [worker.enqueue(reve(png, f"mug {number}")) for number in range(20)]
    started = time.monotonic()
    for job in jobs:
        worker.process.work.run_when_free(job.id)
    until(lambda: all(worker.get(job).status is Status.SUCCEEDED for job in jobs))
    assert time.monotonic() - started < 5
    assert len(sandbox.submissions()) == 20


def test_no_more_calls_run_than_there_are_slots(new_worker: Any, png: bytes, sandbox: Any) -> None:
    worker = new_worker(max_calls_in_flight=2)
    sandbox.arm("latency=0.1@aimlapi*6")
    jobs = [worker.enqueue(reve(png, f"mug {number}")) for number in range(6)]
    for job in jobs:
        worker.process.work.run_when_free(job.id)  # blocks while there is no room
        assert len(worker.process.work.running.held) <= 2
    until(lambda: all(worker.get(job).status is Status.SUCCEEDED for job in jobs))
    assert sandbox._control("GET", "traffic")["peak_in_flight"] <= 4  # calls, and the fetches of others


# The end ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(new_worker: Any, png: bytes, sandbox: Any) -> Callable[..., Any]:
    """A worker in the middle of a call that takes a second and a half."""

    def start(drain_seconds: float) -> Any:
        worker = new_worker(drain_seconds=drain_seconds)
        worker.process.start()
        sandbox.arm("latency=1.5@aimlapi*1")
        job = worker.enqueue(reve(png))
        worker.process.work.run_when_free(job.id)
        until(lambda: worker.get(job).status is Status.SUBMITTING)
        return worker, job

    return start


def test_a_stop_finishes_what_is_in_flight(slow: Any) -> None:
    worker, job = slow(drain_seconds=10)
    worker.stop()
    stored = worker.get(job)
    assert stored.status is Status.SUCCEEDED
    assert dict(worker.darkroom.repository.workers()) == {}


def test_a_stop_without_time_leaves_unknown_outcomes(slow: Any) -> None:
    worker, job = slow(drain_seconds=0)
    worker.stop()
    marked = worker.get(job)
    assert (marked.status, marked.error.code) == (Status.FAILED, Code.OUTCOME_UNKNOWN)
    assert marked.holder is None
    assert dict(worker.darkroom.repository.workers()) == {}


def test_a_stop_releases_jobs_that_were_only_claimed(worker: Any, png: bytes) -> None:
    job = worker.enqueue(reve(png))
    worker.darkroom.advance(job.id, lambda job, now: transitions.claimed(job, worker.holder, now))
    worker.stop()
    assert (worker.get(job).status, worker.get(job).holder) == (Status.QUEUED, None)


def test_after_a_stop_nothing_is_started(worker: Any, png: bytes) -> None:
    worker.stop()
    worker.process.work.run_when_free("0" * 32)
    assert worker.process.work.in_progress == frozenset()


def test_two_processes_on_one_machine_are_two_holders(new_worker: Any) -> None:
    assert new_worker().holder != new_worker().holder


def test_a_process_publishes_its_operations(new_worker: Any, sandbox: Any) -> None:
    worker = new_worker({"DEEPMODE_API_KEY": ""})
    worker.process.start()
    served = worker.darkroom.repository.served_operations()
    assert served == {"aimlapi.reve-remix", "chainhub.ideogram-remix", "phota.remix"}
