"""An error reply of the broker's Redis is an outage that passes: the same worker process consumes again and finishes its calls."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from jobs import Job, Status
from jobs.darkroom import Darkroom
from jobs.embedded import Command, Process, Processes
from jobs.embedded import redis as embedded_redis
from jobs.providers import aimlapi
from jobs.queue import queue_name
from jobs.sandbox import Sandbox
from jobs.settings import Settings


@pytest.fixture
def new_redis(processes: Processes, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Starts a Redis that a test may break, and returns its URL."""
    started: list[Process] = []

    def new() -> str:
        source = embedded_redis.resolve()
        assert not isinstance(source, embedded_redis.External)
        process, url = embedded_redis.start(processes, source, tmp_path / f"redis-{len(started)}")
        started.append(process)
        return url

    yield new
    for process in started:
        processes.stop(process)


@dataclass
class Consuming:
    """A real worker with a broker of its own, whose Redis differs from that of the records."""

    process: Process
    darkroom: Darkroom
    #: the broker
    redis: Redis
    sandbox: Sandbox
    png: bytes
    pid: int

    def enqueue(self, latency_seconds: float = 0.0) -> Job:
        """A job whose provider takes so long."""
        self.sandbox.arm(f"latency={latency_seconds}@aimlapi*1")
        return self.darkroom.enqueue(aimlapi.ReveRemix(image_urls=[self.png], prompt=f"a mug {uuid.uuid4()}"))

    def await_status(self, job: Job, status: Status) -> None:
        """Return once the job has the status."""
        until(lambda: self.darkroom.get(job.id).status is status, f"{status}; {self.process.log_tail(20)}")

    def consumers(self) -> list[str]:
        """The ids of the connections that wait for messages."""
        return [client["id"] for client in self.redis.client_list() if client["cmd"] == "brpop"]

    def await_consumer(self, *, other_than: list[str] | None = None) -> None:
        """Return once a (new) connection waits for messages."""
        until(lambda: set(self.consumers()) - set(other_than or []), f"a consumer; {self.process.log_tail(20)}")

    def check_consumes(self) -> None:
        """A message is consumed, and a job is done, by the same process."""
        name = queue_name("aimlapi")
        message = self.darkroom.dispatch.app.send_task("darkroom.run", args=("0" * 32,), queue=name, ignore_result=True)
        assert message
        until(lambda: self.redis.llen(name) == 0, f"the message to be consumed; {self.process.log_tail(20)}")
        assert self.darkroom.wait(self.enqueue().id, 30).status is Status.SUCCEEDED
        assert self.process.is_alive
        assert self.process.pid == self.pid


@pytest.fixture
def consuming(
    processes: Processes, new_redis: Callable[[], str], redis_url: str, sandbox: Sandbox, png: bytes, tmp_path: Path
) -> Iterator[Consuming]:
    """A worker that consumes."""
    broker_url = new_redis()
    environ = {
        **sandbox.environment,
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_BROKER_URL": broker_url,
        "DARKROOM_STORAGE_URL": f"file://{tmp_path}",
        "DARKROOM_SPOOL_DIR": str(tmp_path / "spool"),
        "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "DARKROOM_WATCHDOG_SECONDS": "600",
    }
    arguments = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-n", f"{uuid.uuid4()}@test"]
    process = processes.start(Command(f"worker-{uuid.uuid4().hex[:8]}", arguments, environ, tmp_path))
    darkroom = Darkroom.open(Settings(redis_url=redis_url, broker_url=broker_url, storage_url=f"file://{tmp_path}"))
    with Redis.from_url(broker_url, decode_responses=True) as redis:
        worker = Consuming(process, darkroom, redis, sandbox, png, process.pid)
        process.await_ready(lambda: bool(worker.consumers()))
        yield worker
        processes.stop(process)
    darkroom.close()


def test_a_consumer_that_is_unblocked_with_an_error_consumes_again(consuming: Consuming) -> None:
    job = consuming.enqueue(latency_seconds=3)
    consuming.await_status(job, Status.SUBMITTING)
    for _ in range(3):
        before = consuming.consumers()
        consuming.redis.client_unblock(before[0], error=True)
        consuming.await_consumer(other_than=before)
    consuming.await_status(job, Status.SUCCEEDED)
    consuming.check_consumes()
    assert len(consuming.sandbox.submissions()) == 2


def test_a_demoted_master_is_left_and_consumed_from_again_once_it_is_promoted(
    consuming: Consuming, new_redis: Callable[[], str]
) -> None:
    with Redis.from_url(new_redis()) as master:
        password = master.connection_pool.connection_kwargs["password"]
        port = master.connection_pool.connection_kwargs["port"]
        job = consuming.enqueue(latency_seconds=3)
        consuming.await_status(job, Status.SUBMITTING)
        before = consuming.consumers()
        consuming.redis.config_set("masterauth", password)
        consuming.redis.replicaof("127.0.0.1", port)
        consuming.await_status(job, Status.SUCCEEDED)
        consuming.redis.replicaof("no", "one")
    consuming.await_consumer(other_than=before)
    assert not set(before) & {client["id"] for client in consuming.redis.client_list()}
    consuming.check_consumes()


@pytest.mark.parametrize(
    ("setting", "broken", "whole"),
    [("min-replicas-to-write", "1", "0"), ("maxmemory", "1", "0")],
    ids=["NOREPLICAS", "OOM"],
)
def test_a_server_that_refuses_writes_is_consumed_from_again_once_it_accepts_them(
    consuming: Consuming, setting: str, broken: str, whole: str
) -> None:
    job = consuming.enqueue(latency_seconds=2)
    consuming.await_status(job, Status.SUBMITTING)
    before = consuming.consumers()
    consuming.redis.config_set(setting, broken)
    with suppress(ResponseError):
        consuming.redis.client_unblock(before[0], error=True)
    consuming.await_status(job, Status.SUCCEEDED)
    time.sleep(2)
    assert consuming.process.is_alive
    consuming.redis.config_set(setting, whole)
    consuming.await_consumer(other_than=before)
    consuming.check_consumes()


def until(true: Callable[[], object], what: str, seconds: float = 40.0) -> None:
    """Return once `true()` is."""
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
