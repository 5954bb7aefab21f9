"""The stack on one machine: the environment of its processes, which providers are called for real, and its files."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs import Status
from jobs.embedded import DidNotStart
from jobs.embedded.files import write_env_file
from jobs.embedded.stack import RedisInUse, Stack, without_password
from jobs.providers import deepmode
from jobs.sandbox.faults import VENDORS as SANDBOXED
from jobs.settings import stack_environment
from jobs.state.repository import Repository

REQUEST = deepmode.Generate(model_id="b8a9", prompt="a lake at dawn")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for a user who has a key of one provider."""
    given = {
        "PHOTA_API_KEY": "a-real-key",
        "PHOTA_BASE_URL": "https://provider.example",
        "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "10.0.0.0/8",
    }
    with Stack(tmp_path_factory.mktemp("keyed"), given) as running:
        yield running


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_without_keys_the_sandbox_plays_every_provider_it_knows(stack: Stack) -> None:
    assert set(stack.played) == set(SANDBOXED)
    assert stack.real == ()
    assert stack.environ["PHOTA_BASE_URL"] == f"{stack.sandbox_url}/phota"
    assert stack.environ["DARKROOM_PUBLIC_URL"] == stack.url


def test_a_job_succeeds_and_its_image_is_in_the_folder(stack: Stack) -> None:
    job = stack.darkroom.wait(stack.darkroom.enqueue(REQUEST).id, timeout=20)
    assert job.status is Status.SUCCEEDED
    [artifact] = job.artifacts
    assert httpx.get(artifact.url(), trust_env=False).content == (stack.images / artifact.key).read_bytes()


def test_a_provider_whose_key_is_set_is_called_for_real(keyed: Stack) -> None:
    assert set(keyed.played) == set(SANDBOXED) - {"phota"}
    assert keyed.real == ("phota",)
    assert keyed.environ["PHOTA_API_KEY"] == "a-real-key"
    assert keyed.environ["PHOTA_BASE_URL"] == "https://provider.example"


def test_a_real_provider_is_not_asked_to_call_this_machine(keyed: Stack) -> None:
    assert keyed.environ["DARKROOM_PUBLIC_URL"] == ""
    job = keyed.darkroom.wait(keyed.darkroom.enqueue(REQUEST).id, timeout=20)
    assert job.status is Status.SUCCEEDED
    assert not any(event.what.startswith("running") for event in job.timeline)


def test_loopback_is_allowed_beside_the_given_networks(keyed: Stack) -> None:
    assert keyed.environ["DARKROOM_ALLOWED_PRIVATE_NETWORKS"] == "10.0.0.0/8,127.0.0.0/8"


@pytest.mark.starts_shared
def test_a_worker_that_dies_is_started_again(keyed: Stack) -> None:
    before = keyed.process("worker")
    os.kill(before.pid, signal.SIGKILL)
    give_up_at = time.monotonic() + 5
    while not (restarted := keyed.restart_dead()):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    assert restarted == ("worker",)
    assert keyed.process("worker").pid != before.pid


def test_only_the_owner_can_read_its_secrets(stack: Stack) -> None:
    for name in ("secret-key", "api-key", "redis/redis.conf"):
        assert mode(stack.folder / name) == 0o600
    assert mode(write_env_file(stack.folder, stack.environ)) == 0o600


def test_the_env_file_is_read_back_while_the_stack_runs(stack: Stack, tmp_path: Path) -> None:
    write_env_file(stack.folder, stack.environ)
    found = stack_environment(stack.folder)
    assert found == {name: value for name, value in stack.environ.items() if name.startswith("DARKROOM_")}
    assert stack_environment(tmp_path) == {}


def test_the_env_file_of_a_stack_that_has_ended_is_ignored(tmp_path: Path, free_port: int) -> None:
    (tmp_path / "env").write_text(f"DARKROOM_REDIS_URL=redis://127.0.0.1:{free_port}/0\n")
    assert stack_environment(tmp_path) == {}


def test_a_stack_with_a_sandbox_refuses_a_redis_that_other_workers_use(redis_url: str, tmp_path: Path) -> None:
    Repository.open(redis_url, retention_seconds=60).tick("theirs", {"operations": ["phota.remix"]}, 1)
    with (
        pytest.raises(RedisInUse, match="unset DARKROOM_REDIS_URL"),
        Stack(tmp_path, {"DARKROOM_REDIS_URL": redis_url}),
    ):
        pass


def test_a_given_redis_that_does_not_answer_is_named(tmp_path: Path, free_port: int) -> None:
    given = {"DARKROOM_REDIS_URL": f"redis://:secret@127.0.0.1:{free_port}/0"}
    with pytest.raises(DidNotStart, match=rf"at redis://127.0.0.1:{free_port}/0") as error, Stack(tmp_path, given):
        pass
    assert "secret" not in str(error.value)


def test_a_url_is_shown_without_its_password() -> None:
    assert without_password("redis://user:p%40ss@host:6379/1") == "redis://host:6379/1"
