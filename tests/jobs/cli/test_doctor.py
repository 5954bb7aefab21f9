"""The doctor names what is missing, and the line that mends it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs import providers
from jobs.cli import run
from jobs.embedded.stack import Stack


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the doctor: its exit code, and the states, words and mends by name."""

    def examine() -> tuple[int, Mapping[str, Mapping[str, str]]]:
        capsys.readouterr()
        code = run(["doctor", "--json"])
        said = json.loads(capsys.readouterr().out)
        assert said["ok"] is (code == 0)
        return code, {finding["name"]: finding for finding in said["findings"]}

    return examine


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int) -> pytest.MonkeyPatch:
    """A folder for the pictures, a Redis that is away, and nothing else."""
    for name in providers.names():
        monkeypatch.delenv(f"{name.upper()}_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"redis://127.0.0.1:{free_port}/0")
    monkeypatch.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/pictures")
    return monkeypatch


def test_a_running_stack_is_sound(examined: Any, bare: pytest.MonkeyPatch, stack: Stack) -> None:
    for name, value in stack.environ.items():
        if name.startswith("DARKROOM_"):
            bare.setenv(name, value)
    code, found = examined()
    assert code == 0
    without_key = set(providers.names()) - {*stack.played, *stack.real}
    assert {finding["state"] for name, finding in found.items() if name not in without_key} == {"ok"}
    assert "Redis 6" in found["redis"]["says"] or "Redis" in found["redis"]["says"]
    assert "writes only once" in found["storage"]["says"]
    assert set(found) >= {"redis", "broker", "storage", "receiver", "workers", "jobs", *providers.names()}


def test_a_redis_that_is_away_is_named_without_its_password(
    examined: Any, bare: pytest.MonkeyPatch, free_port: int
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", f"redis://:the-password@127.0.0.1:{free_port}/0")
    code, found = examined()
    assert code == 1
    assert found["redis"]["state"] == "broken"
    assert f"redis://127.0.0.1:{free_port}/0 does not answer" in found["redis"]["says"]
    assert found["redis"]["mend"] == "export DARKROOM_REDIS_URL=redis://127.0.0.1:6379/0"
    assert "the-password" not in json.dumps(found)


def test_without_a_worker_jobs_only_wait(examined: Any, bare: pytest.MonkeyPatch, redis_url: str) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    code, found = examined()
    assert code == 1
    assert (found["workers"]["state"], found["workers"]["mend"]) == ("broken", "celery -A worker worker")
    assert found["phota"]["mend"].startswith("export PHOTA_API_KEY=...")
    assert found["receiver"]["state"] == found["api keys"]["state"] == "warning"


def test_a_redis_that_forgets_is_warned_of(
    examined: Any, bare: pytest.MonkeyPatch, redis_url: str, redis: Redis
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        _, found = examined()
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert found["durability"]["state"] == "warning"
    assert found["durability"]["mend"].startswith("redis-cli config set maxmemory-policy noeviction")


def test_a_storage_that_cannot_be_written_is_broken(
    examined: Any, bare: pytest.MonkeyPatch, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    bare.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/file/pictures")
    _, found = examined()
    assert found["storage"]["state"] == "broken"
    assert found["storage"]["mend"].startswith("export DARKROOM_STORAGE_URL=s3://bucket/prefix")


def test_a_public_url_without_a_secret_or_a_receiver_is_broken(
    examined: Any, bare: pytest.MonkeyPatch, redis_url: str, free_port: int
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    bare.setenv("DARKROOM_PUBLIC_URL", f"http://127.0.0.1:{free_port}")
    _, found = examined()
    assert found["secret keys"]["state"] == found["receiver"]["state"] == "broken"
    assert "granian" in found["receiver"]["mend"]


def test_a_malformed_setting_is_all_that_is_said(examined: Any, bare: pytest.MonkeyPatch) -> None:
    bare.setenv("DARKROOM_SPOOL_MAX_BYTES", "plenty")
    code, found = examined()
    assert code == 1
    assert set(found) == {"settings"}
    assert "DARKROOM_SPOOL_MAX_BYTES" in found["settings"]["says"]


def test_a_person_reads_a_table_and_the_lines_that_mend(
    bare: pytest.MonkeyPatch, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    assert run(["doctor"]) == 1
    said = capsys.readouterr()
    assert "none is alive" in said.out
    assert "workers: celery -A worker worker" in said.err
