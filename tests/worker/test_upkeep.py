"""What is past its retention is forgotten, once an hour by one worker of all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jobs.darkroom import Darkroom
from jobs.new_job import MAX_DEADLINE_SECONDS
from jobs.settings import Settings
from jobs.storage import staged_key
from worker.upkeep import Cleaning

OLD, YOUNG = "a" * 64, "b" * 64


@pytest.fixture
def darkroom(redis_url: str, tmp_path: Path) -> Darkroom:
    """A folder with two staged inputs, one of them older than any job can be."""
    darkroom = Darkroom.open(Settings(redis_url=redis_url, storage_url=f"file://{tmp_path}", retention_seconds=60))
    for sha256 in (OLD, YOUNG):
        key = staged_key(sha256, "png")
        darkroom.storage.put(key, b"a picture", content_type="image/png", metadata={"sha256": sha256})
    past = time.time() - 60 - MAX_DEADLINE_SECONDS - 1
    os.utime(tmp_path / staged_key(OLD, "png"), (past, past))
    return darkroom


def test_a_staged_input_that_no_job_can_need_is_deleted(darkroom: Darkroom) -> None:
    assert Cleaning(darkroom).clean() == 1

    assert not darkroom.storage.exists(staged_key(OLD, "png"))
    assert darkroom.storage.exists(staged_key(YOUNG, "png"))


def test_an_input_that_was_enqueued_again_stays(darkroom: Darkroom) -> None:
    darkroom.storage.renew(staged_key(OLD, "png"))

    assert Cleaning(darkroom).clean() == 0


def test_only_one_worker_has_its_turn(darkroom: Darkroom) -> None:
    assert Cleaning(darkroom).clean() == 1

    assert Cleaning(darkroom).clean() == 0


def test_a_redis_that_is_away_is_no_error(tmp_path: Path, free_port: int) -> None:
    away = Settings(redis_url=f"redis://127.0.0.1:{free_port}/0", storage_url=f"file://{tmp_path}")

    assert Cleaning(Darkroom.open(away)).clean() == 0
