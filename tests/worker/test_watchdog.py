"""The watchdog ends a worker that no longer works although its process lives, and no other, whatever the broker is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kombu import Connection

from jobs import Status
from jobs.darkroom import Darkroom
from jobs.embedded import Command, Process, Processes
from jobs.providers import aimlapi
from jobs.queue import queue, queue_name
from jobs.sandbox import Sandbox
from jobs.settings import Settings
from worker.watchdog import EXIT_CODE, Watchdog

#: the watchdog's time in the tests of real workers, in seconds: the shortest that is allowed
WATCHDOG_SECONDS = 5


@dataclass
class Clock:
    """Time that passes when a test says so."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Loop:
    """An event loop that runs what it is given, or not."""

    runs: bool = True
    given: list[Callable[[], None]] = field(default_factory=list)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.given.append(callback)
        if self.runs:
            callback()


@pytest.fixture
def clock() -> Clock:
    """The watchdog's time."""
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Watchdog:
    """A watchdog that waits for a minute."""
    return Watchdog(60.0, clock)


def test_a_worker_that_receives_messages_is_left_alone(watchdog: Watchdog, clock: Clock) -> None:
    for minute in range(10):
        clock.seconds += 59
        watchdog.ask_loop(Loop().call_soon)
        watchdog.observe_consumer(waiting=100, room=5, received=minute)
        assert watchdog.verdict is None


@pytest.mark.parametrize(("waiting", "room"), [(0, 5), (100, 0), (None, 5)])
def test_nothing_follows_without_messages_or_room_or_an_answer_of_the_broker(
    watchdog: Watchdog, clock: Clock, waiting: int | None, room: int
) -> None:
    for _ in range(10):
        clock.seconds += 59
        watchdog.observe_consumer(waiting=waiting, room=room, received=7)
        assert watchdog.verdict is None


def test_a_worker_whose_consumer_is_never_observed_is_left_alone(watchdog: Watchdog, clock: Clock) -> None:
    for _ in range(10):
        clock.seconds += 59
        watchdog.ask_loop(Loop().call_soon)
        assert watchdog.verdict is None


def test_an_observation_long_ago_proves_nothing_now(watchdog: Watchdog, clock: Clock) -> None:
    for _ in range(2):
        watchdog.observe_consumer(waiting=1, room=5, received=7)
    clock.seconds += 600
    assert watchdog.verdict is None


def test_messages_that_are_not_received_end_the_worker(watchdog: Watchdog, clock: Clock) -> None:
    for _ in range(40):
        watchdog.observe_consumer(waiting=1, room=5, received=7)
        clock.seconds += 2
    assert "none has been received for 60 s" in str(watchdog.verdict)


def test_a_loop_that_does_not_answer_ends_the_worker(watchdog: Watchdog, clock: Clock) -> None:
    stuck = Loop(runs=False)
    for _ in range(40):
        watchdog.ask_loop(stuck.call_soon)
        clock.seconds += 2
    assert "event loop" in str(watchdog.verdict)
    assert len(stuck.given) == 1


def test_an_observer_that_was_delayed_blames_nobody(watchdog: Watchdog, clock: Clock) -> None:
    watchdog.ask_loop(Loop().call_soon)
    clock.seconds += 600
    assert watchdog.verdict is None


def test_nobody_is_blamed_while_redis_is_away(watchdog: Watchdog, clock: Clock) -> None:
    watchdog.ask_loop(Loop(runs=False).call_soon)
    clock.seconds += 600
    watchdog.excuse()
    assert watchdog.verdict is None


# Real workers, with each kind of broker -----------------------------------------------------------------------------


@pytest.fixture(params=["the same Redis", "another database", "RabbitMQ"])
def broker_url(request: pytest.FixtureRequest, redis_url: str) -> Iterator[str]:
    """The URL of a broker without a message: empty for the records' own Redis."""
    if request.param == "RabbitMQ":
        yield request.getfixturevalue("rabbitmq_url")
    else:
        yield "" if request.param == "the same Redis" else redis_url.removesuffix("/0") + "/9"


@pytest.fixture
def rabbitmq_url() -> Iterator[str]:
    """The URL of a new virtual host of the RabbitMQ on this machine."""
    name = f"darkroom-test-{uuid.uuid4().hex[:8]}"
    url = f"amqp://guest:guest@127.0.0.1:5672/{name}"
    if shutil.which("rabbitmqctl") is None:
        pytest.skip("no RabbitMQ here: apt-get install rabbitmq-server")
    try:
        _rabbitmqctl("add_vhost", name)
        _rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    except subprocess.CalledProcessError:
        pytest.skip("RabbitMQ does not run, or may not be configured by this user: rabbitmq-server -detached")
    yield url
    _rabbitmqctl("delete_vhost", name)


def _rabbitmqctl(*arguments: str) -> None:
    subprocess.run(["rabbitmqctl", "--quiet", *arguments], check=True, capture_output=True, timeout=30)


@dataclass
class Started:
    """A real worker, a producer that uses the same broker, and a connection to that broker."""

    process: Process
    darkroom: Darkroom
    broker: Connection

    def await_ready(self) -> None:
        """Return once the worker consumes."""
        control = self.darkroom.dispatch.app.control
        self.process.await_ready(lambda: bool(control.ping(timeout=0.5)))

    def run_job(self, png: bytes) -> Status:
        """Enqueue a job, and return its final status."""
        request = aimlapi.ReveRemix(image_urls=[png], prompt=f"a mug {uuid.uuid4()}")
        return self.darkroom.wait(self.darkroom.enqueue(request).id, 30).status


@pytest.fixture
def started(
    processes: Processes, redis_url: str, broker_url: str, sandbox: Sandbox, tmp_path: Path
) -> Iterator[Started]:
    """A worker whose watchdog waits for the shortest time."""
    environ = {
        **sandbox.environment,
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_BROKER_URL": broker_url,
        "DARKROOM_STORAGE_URL": f"file://{tmp_path}",
        "DARKROOM_SPOOL_DIR": str(tmp_path / "spool"),
        "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "DARKROOM_WATCHDOG_SECONDS": str(WATCHDOG_SECONDS),
        "DARKROOM_DRAIN_SECONDS": "1",
    }
    arguments = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-l", "info", "-n", f"{uuid.uuid4()}@test"]
    settings = Settings(redis_url=redis_url, broker_url=broker_url, storage_url=f"file://{tmp_path}")
    darkroom = Darkroom.open(settings)
    with Connection(settings.broker) as broker:
        process = processes.start(Command(f"worker-{uuid.uuid4().hex[:8]}", arguments, environ, tmp_path))
        yield Started(process, darkroom, broker)
        processes.stop(process)
    darkroom.close()


def test_a_worker_lives_beyond_the_watchdogs_time_and_does_its_jobs(started: Started, png: bytes) -> None:
    started.await_ready()
    assert started.run_job(png) is Status.SUCCEEDED
    for _ in range(3):
        time.sleep(WATCHDOG_SECONDS)
        assert started.process.is_alive, started.process.log.read_text()
        assert started.run_job(png) is Status.SUCCEEDED


def test_a_worker_whose_consumer_has_stopped_ends_itself(started: Started) -> None:
    started.await_ready()
    name = queue_name("aimlapi")
    started.darkroom.dispatch.app.control.cancel_consumer(name, reply=True, timeout=5)
    with started.broker.Producer() as producer:
        producer.publish("nobody receives this", routing_key=name, exchange=queue("aimlapi").exchange)
    _until(lambda: not started.process.is_alive, 40)

    assert started.process._child.wait() == EXIT_CODE
    assert f"this worker ends itself, exit code {EXIT_CODE}" in started.process.log.read_text()


def _until(true: Callable[[], bool], seconds: float) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
