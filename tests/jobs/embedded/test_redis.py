"""Which Redis is used, and that the private one is private and durable."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from jobs.embedded import Processes
from jobs.embedded.redis import BINARIES, Binary, External, Fake, is_up, resolve, start


def executable(folder: Path, name: str) -> Path:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_a_given_url_comes_first(tmp_path: Path) -> None:
    executable(tmp_path, "redis-server")
    assert resolve("redis://elsewhere:6379/3", path=str(tmp_path)) == External("redis://elsewhere:6379/3")


@pytest.mark.parametrize("name", BINARIES)
def test_a_server_on_path_comes_next(tmp_path: Path, name: str) -> None:
    assert resolve(path=str(tmp_path / "nothing")) != Binary(str(tmp_path / name))
    found = executable(tmp_path, name)
    assert resolve(path=str(tmp_path)) == Binary(str(found))


def test_redis_is_preferred_to_valkey(tmp_path: Path) -> None:
    found = {name: executable(tmp_path, name) for name in reversed(BINARIES)}
    assert resolve(path=str(tmp_path)) == Binary(str(found["redis-server"]))


def test_without_a_server_the_embedded_extra_is_used(tmp_path: Path) -> None:
    assert isinstance(resolve(path=str(tmp_path)), Binary | Fake)


def test_the_private_redis_is_durable_and_evicts_nothing(redis: Redis) -> None:
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
    assert {name: redis.config_get(name)[name] for name in wanted} == wanted


def test_the_private_redis_has_a_password_that_only_its_owner_can_read(tmp_path: Path) -> None:
    source = resolve()
    assert isinstance(source, Binary)
    with Processes(tmp_path / "logs") as processes:
        process, url = start(processes, source, tmp_path / "data")
        assert process.is_alive
        host = url.rpartition("@")[2]
        with Redis.from_url(f"redis://{host}") as stranger, pytest.raises(AuthenticationError):
            stranger.get("anything")
        assert stat.S_IMODE((tmp_path / "data" / "redis.conf").stat().st_mode) == 0o600


def test_the_private_redis_keeps_its_data_after_a_kill(tmp_path: Path) -> None:
    source = resolve()
    assert isinstance(source, Binary)
    with Processes(tmp_path / "logs") as processes:
        process, url = start(processes, source, tmp_path)
        with Redis.from_url(url) as client:
            client.set("job", "accepted")
        processes.kill(process)
        processes.start(process.command).await_ready(lambda: is_up(url))
        with Redis.from_url(url) as client:
            assert client.get("job") == b"accepted"


def test_fakeredis_serves_scripts_and_lists_over_tcp(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        _, url = start(processes, Fake(), tmp_path)
        with Redis.from_url(url) as client:
            assert client.eval("return redis.call('LPUSH', KEYS[1], ARGV[1])", 1, "list", "a") == 1
            assert client.brpop(["list"], timeout=1) == (b"list", b"a")


def test_a_redis_that_is_not_running_is_not_up(free_port: int) -> None:
    assert not is_up(f"redis://127.0.0.1:{free_port}/0")
