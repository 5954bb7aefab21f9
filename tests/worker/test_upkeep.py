"""Background services: what is past its retention is deleted, once an hour by one worker, and no error ends a service."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.darkroom import Darkroom
from jobs.errors import RedisUnavailable
from jobs.new_job import MAX_DEADLINE_SECONDS
from jobs.settings import Settings
from jobs.storage.staged import staged_key
from worker.services import ServiceThread
from worker.upkeep import Cleanup

OLD, YOUNG = "a" * 64, "b" * 64


@pytest.fixture
def darkroom(redis_url: str, tmp_path: Path) -> Darkroom:
    """A folder with two staged inputs, one of them older than any job can be."""
    darkroom = Darkroom.open(Settings(redis_url=redis_url, storage_url=f"file://{tmp_path}", retention_seconds=60))
    for sha256 in (OLD, YOUNG):
        key = staged_key(sha256, "png")
        darkroom.storage.put(key, b"an image", content_type="image/png", metadata={"sha256": sha256})
    past = time.time() - 60 - MAX_DEADLINE_SECONDS - 1
    os.utime(tmp_path / staged_key(OLD, "png"), (past, past))
    return darkroom


def test_a_staged_input_that_no_job_can_need_is_deleted(darkroom: Darkroom) -> None:
    Cleanup(darkroom).run_once()

    assert not darkroom.storage.exists(staged_key(OLD, "png"))
    assert darkroom.storage.exists(staged_key(YOUNG, "png"))


def test_an_input_that_was_enqueued_again_stays(darkroom: Darkroom) -> None:
    darkroom.storage.renew(staged_key(OLD, "png"))

    assert Cleanup(darkroom).delete_inputs() == 0


def test_one_worker_cleans_up_for_all(darkroom: Darkroom) -> None:
    Cleanup(darkroom).run_once()
    darkroom.storage.put(staged_key(OLD, "png"), b"an image", content_type="image/png", metadata={"sha256": OLD})
    Cleanup(darkroom).run_once()

    assert darkroom.storage.exists(staged_key(OLD, "png"))


@dataclass
class Flaky:
    """A service that fails in several ways before it works."""

    name: str = "flaky"
    interval_seconds: float = 0.01
    errors: list[Exception] = field(default_factory=lambda: [RedisUnavailable("away"), ValueError("a bug")])
    worked: threading.Event = field(default_factory=threading.Event)

    def run_once(self) -> bool:
        if self.errors:
            raise self.errors.pop(0)
        self.worked.set()
        return False


def test_a_service_survives_whatever_it_raises_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    service = Flaky()
    thread = ServiceThread(service)
    thread.start()
    assert service.worked.wait(10)
    thread.stop()
    assert not thread._thread.is_alive()
    assert [record.getMessage() for record in caplog.records] == ["flaky: away", "flaky"]
