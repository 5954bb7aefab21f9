"""The doctor names what is wrong, and the command that fixes it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from redis import Redis

from jobs import providers
from jobs.cli import run
from jobs.embedded.stack import Stack


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the doctor: its exit code, and the findings by name."""

    def examine() -> tuple[int, Mapping[str, Mapping[str, str]]]:
        capsys.readouterr()
        code = run(["doctor", "--json"])
        said = json.loads(capsys.readouterr().out)
        assert said["ok"] is (code == 0)
        return code, {finding["name"]: finding for finding in said["findings"]}

    return examine


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int) -> pytest.MonkeyPatch:
    """A folder for images, a Redis that does not answer, and nothing else."""
    for name in providers.names():
        monkeypatch.delenv(f"{name.upper()}_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"redis://127.0.0.1:{free_port}/0")
    monkeypatch.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/images")
    return monkeypatch


def test_a_running_stack_has_no_problem(examined: Any, bare: pytest.MonkeyPatch, stack: Stack) -> None:
    for name, value in stack.environ.items():
        if name.startswith("DARKROOM_"):
            bare.setenv(name, value)
    code, found = examined()
    assert code == 0
    without_key = set(providers.names()) - {*stack.played, *stack.real}
    assert {finding["state"] for name, finding in found.items() if name not in without_key} == {"ok"}
    assert re.search(r"answers, Redis \d+\.\d+", found["redis"]["message"])
    assert "writes each object once" in found["storage"]["message"]
    assert set(found) >= {"redis", "broker", "storage", "receiver", "workers", "jobs", *providers.names()}


def test_a_redis_that_does_not_answer_is_named_without_its_password(
    examined: Any, bare: pytest.MonkeyPatch, free_port: int
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", f"redis://:the-password@127.0.0.1:{free_port}/0")
    code, found = examined()
    assert code == 1
    assert found["redis"]["state"] == "broken"
    assert f"redis://127.0.0.1:{free_port}/0 does not answer" in found["redis"]["message"]
    assert found["redis"]["fix"] == "export DARKROOM_REDIS_URL=redis://127.0.0.1:6379/0"
    assert "the-password" not in json.dumps(found)


def test_without_a_worker_jobs_cannot_run(examined: Any, bare: pytest.MonkeyPatch, redis_url: str) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    code, found = examined()
    assert code == 1
    assert (found["workers"]["state"], found["workers"]["fix"]) == ("broken", "celery -A worker worker")
    assert found["phota"]["fix"].startswith("export PHOTA_API_KEY=...")
    assert found["receiver"]["state"] == found["api keys"]["state"] == "warning"


def test_a_redis_that_evicts_jobs_is_a_warning(
    examined: Any, bare: pytest.MonkeyPatch, redis_url: str, redis: Redis
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        _, found = examined()
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert found["durability"]["state"] == "warning"
    assert found["durability"]["fix"].startswith("redis-cli config set maxmemory-policy noeviction")


def test_a_storage_that_cannot_be_written_is_broken(
    examined: Any, bare: pytest.MonkeyPatch, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    bare.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/file/images")
    _, found = examined()
    assert found["storage"]["state"] == "broken"
    assert found["storage"]["fix"].startswith("export DARKROOM_STORAGE_URL=s3://bucket/prefix")
    assert "correct DARKROOM_STORAGE_URL" in found["storage"]["message"]


def test_a_public_url_without_a_secret_or_a_receiver_is_broken(
    examined: Any, bare: pytest.MonkeyPatch, redis_url: str, free_port: int
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    bare.setenv("DARKROOM_PUBLIC_URL", f"http://127.0.0.1:{free_port}")
    _, found = examined()
    assert found["secret keys"]["state"] == found["receiver"]["state"] == "broken"
    assert "granian" in found["receiver"]["fix"]


def test_a_malformed_setting_is_the_only_finding(examined: Any, bare: pytest.MonkeyPatch) -> None:
    bare.setenv("DARKROOM_SPOOL_MAX_BYTES", "plenty")
    code, found = examined()
    assert code == 1
    assert set(found) == {"settings"}
    assert "DARKROOM_SPOOL_MAX_BYTES" in found["settings"]["message"]
    assert found["settings"]["fix"] == "export DARKROOM_SPOOL_MAX_BYTES=10737418240"


def test_a_missing_bucket_is_fixed_by_storage_init(
    examined: Any, bare: pytest.MonkeyPatch, redis_url: str, s3: S3
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    for name, value in s3.environ.items():
        bare.setenv(name, value)
    bare.setenv("DARKROOM_STORAGE_URL", f"s3://missing-{s3.bucket}")
    _, found = examined()
    assert found["storage"]["state"] == "broken"
    assert run(shlex.split(found["storage"]["fix"])[1:]) == 0
    _, found = examined()
    assert found["storage"]["state"] == "ok"
