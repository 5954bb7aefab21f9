"""A worker that no longer works although its process lives is ended, and nothing else is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from jobs.embedded import Command, Processes
from jobs.queue import application, queue_name
from jobs.settings import Settings
from worker.watchdog import EXIT_CODE, Watchdog


@dataclass
class Clock:
    """Time that passes when it is told to."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """The watchdog's time."""
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Watchdog:
    """A watchdog that waits for a minute."""
    return Watchdog(60.0, clock)


def test_a_worker_that_works_is_left_alone(watchdog: Watchdog, clock: Clock) -> None:
    for minute in range(10):
        clock.seconds += 59
        watchdog.looped()
        watchdog.observed(waiting=100, room=5, consumed=minute)
        assert watchdog.verdict is None


def test_a_worker_without_messages_or_without_room_is_left_alone(watchdog: Watchdog, clock: Clock) -> None:
    for waiting, room in ((0, 5), (100, 0)) * 5:
        clock.seconds += 59
        watchdog.looped()
        watchdog.observed(waiting=waiting, room=room, consumed=7)
        assert watchdog.verdict is None


def test_messages_that_nobody_takes_are_its_end(watchdog: Watchdog, clock: Clock) -> None:
    watchdog.observed(waiting=1, room=5, consumed=7)
    clock.seconds += 61
    watchdog.looped()
    watchdog.observed(waiting=1, room=5, consumed=7)
    assert "none has been taken" in str(watchdog.verdict)


def test_a_loop_that_does_not_answer_is_its_end(watchdog: Watchdog, clock: Clock) -> None:
    clock.seconds += 61
    watchdog.observed(waiting=0, room=5, consumed=7)
    assert "event loop" in str(watchdog.verdict)


def test_nobody_is_blamed_while_redis_is_away(watchdog: Watchdog, clock: Clock) -> None:
    clock.seconds += 600
    watchdog.rested()
    assert watchdog.verdict is None


def test_a_real_worker_whose_consumer_stopped_ends_itself_for_its_supervisor(
    processes: Processes, redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    environ = {
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_STORAGE_URL": f"file://{tmp_path}",
        "DARKROOM_SPOOL_DIR": str(tmp_path / "spool"),
        "DARKROOM_WATCHDOG_SECONDS": "5",
        "DARKROOM_DRAIN_SECONDS": "1",
        "AIMLAPI_API_KEY": "a-key",
    }
    arguments = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-l", "info", "-n", "deaf@test"]
    worker = processes.start(Command("deaf-worker", arguments, environ, tmp_path))
    control = application(Settings(redis_url=redis_url)).control
    _until(lambda: bool(control.ping(timeout=0.5)))

    control.cancel_consumer(queue_name("aimlapi"), reply=True, timeout=5)
    redis.lpush(queue_name("aimlapi"), b"a message that nobody takes")
    _until(lambda: not worker.alive, 30)

    assert worker._child.wait() == EXIT_CODE
    assert "this worker ends itself, exit code 70" in worker.log.read_text()


def _until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
