"""Redis during outages: which replies are tried again, on which connection, and what the caller reads when it stays away."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis, exceptions

from jobs.errors import RedisUnavailable
from jobs.state.connection import MAX_CONNECTIONS, RetryingRedis, backoff_seconds, connect, outage

ECHO = "return {KEYS[1], ARGV[1]}"
WRITE = "return redis.call('SET', KEYS[1], ARGV[1])"


@pytest.fixture
def retrying(redis_url: str) -> Iterator[RetryingRedis]:
    retrying = RetryingRedis(connect(redis_url))
    yield retrying
    retrying.close()


@contextmanager
def opened(url: str, **options: Any) -> Iterator[RetryingRedis]:
    retrying = RetryingRedis(connect(url), **options)
    try:
        yield retrying
    finally:
        retrying.close()


def set_key(retrying: RetryingRedis, value: str = "1") -> Any:
    return retrying.call(lambda redis: redis.set("key", value))


# --- scripts and pipelines --------------------------------------------------------------------------------------------


def test_a_script_that_the_server_does_not_know_is_loaded_on_the_way(retrying: RetryingRedis, redis: Redis) -> None:
    script = redis.register_script(ECHO)
    redis.script_flush()
    assert retrying.run(script, ["key"], ["one"]) == [b"key", b"one"]
    redis.script_flush()
    assert retrying.write(script, [("key", "one"), ("key", "two")], 1) == [[b"key", b"one"], [b"key", b"two"]]
    redis.script_flush()
    assert retrying.write(script, [("key", "one")], 1) == [[b"key", b"one"]]
    assert retrying.write(script, [], 1) == ()


def test_after_an_error_the_next_answer_is_the_right_one(retrying: RetryingRedis) -> None:
    def fill(pipe: Any) -> None:
        pipe.set("a", "text")
        pipe.incr("a")
        pipe.set("b", "2")

    with pytest.raises(RedisUnavailable, match=r"refused a command \(ERR\)"):
        retrying.pipeline(fill)
    assert retrying.call(lambda redis: redis.get("b")) == b"2"


def test_an_error_never_shows_what_was_written(retrying: RetryingRedis) -> None:
    with pytest.raises(RedisUnavailable) as raised:
        retrying.pipeline(lambda pipe: pipe.execute_command("NO-SUCH-COMMAND", "a-prompt"))
    assert "a-prompt" not in str(raised.value)


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_connection_that_the_server_closed_is_opened_again(retrying: RetryingRedis, redis: Redis) -> None:
    mine = retrying.call(lambda redis: redis.client_id())
    redis.client_kill_filter(_id=str(mine))
    assert set_key(retrying)


def test_many_threads_share_a_bounded_number_of_connections(retrying: RetryingRedis, redis: Redis) -> None:
    before = len(redis.client_list())
    with ThreadPoolExecutor(200) as threads:
        assert all(threads.map(lambda _: set_key(retrying), range(2000)))
    assert len(redis.client_list()) <= before + MAX_CONNECTIONS


def test_closing_hangs_up(redis_url: str, redis: Redis) -> None:
    def connected() -> set[str]:
        return {client["id"] for client in redis.client_list()}

    before = connected()
    with opened(redis_url) as retrying:
        set_key(retrying)
        [mine] = connected() - before
    while mine in connected():  # the server notices a moment later
        time.sleep(0.01)


_FORKING = """
import os, sys, warnings
from jobs.state.connection import RetryingRedis, connect
warnings.simplefilter("ignore")
retrying = RetryingRedis(connect(sys.argv[1]))
retrying.call(lambda redis: redis.ping())
child = os.fork()
name = "parent" if child else "child"
answers = {retrying.call(lambda redis: redis.echo(name)) for _ in range(500)}
assert answers == {name.encode()}, answers
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_asks_over_a_connection_of_its_own(redis_url: str) -> None:
    subprocess.run([sys.executable, "-c", _FORKING, redis_url], check=True, timeout=30)


# --- replies that mean an outage --------------------------------------------------------------------------------------


def test_writes_go_on_by_themselves_when_a_demoted_server_is_promoted_again(new_server: Callable[..., Any]) -> None:
    first, second = new_server(), new_server()
    with opened(first.url, patience_seconds=30) as retrying, first.client() as operator:
        script = operator.register_script(WRITE)
        written, stop = [0] * 8, threading.Event()

        def write(number: int) -> None:
            while not stop.is_set():
                retrying.run(script, ["key"], [number])
                written[number] += 1

        with ThreadPoolExecutor(8) as threads:
            running = [threads.submit(write, number) for number in range(8)]
            try:
                _await(lambda: all(written), "each thread writes")
                operator.replicaof("127.0.0.1", second.port)
                with opened(first.url) as hasty:
                    _await(lambda: "it replied READONLY" in _refusal(hasty), "the server is a replica")
                _await(lambda: _connected_writers(operator) == 0, "no thread keeps its connection")
                operator.replicaof("NO", "ONE")
                before = list(written)
                _await(lambda: all(now > then for now, then in zip(written, before, strict=True)), "each goes on")
            finally:
                stop.set()
        assert [thread.result() for thread in running] == [None] * 8


def test_a_demoted_server_is_left_and_asked_again_on_a_new_connection(new_server: Callable[..., Any]) -> None:
    """Where a proxy or a name leads to the primary, only a new connection gets there."""
    first, second = new_server(), new_server()
    with opened(first.url) as retrying, first.client() as operator:
        set_key(retrying)
        before = retrying.call(lambda redis: redis.client_id())
        operator.replicaof("127.0.0.1", second.port)
        _await(lambda: "it replied READONLY" in _refusal(retrying), "the server is a replica")
        assert retrying.call(lambda redis: redis.client_id()) != before


def test_a_write_that_an_operator_unblocks_is_tried_again(new_server: Callable[..., Any]) -> None:
    server = new_server()
    with opened(server.url, patience_seconds=30, replicas=1) as retrying, server.client() as operator:
        script, unblocked = operator.register_script(WRITE), []
        replica = new_server("--replicaof", "127.0.0.1", str(server.port))
        _await(lambda: operator.info("replication")["connected_slaves"] == 1, "the replica is connected")
        with replica.client() as paused:
            paused.execute_command("REPLICAOF", "NO", "ONE")
        with ThreadPoolExecutor(1) as threads:
            write = threads.submit(retrying.write, script, [("key", "1")], 1)
            for _ in range(3):
                _await(lambda: _unblock(operator, unblocked), "the write waits for a replica")
            assert not write.done()
            with replica.client() as back:
                back.execute_command("REPLICAOF", "127.0.0.1", str(server.port))
            assert write.result(timeout=60) == [b"OK"]
        assert len(unblocked) == 3


@pytest.mark.parametrize(
    ("code", "break_it", "mend_it"),
    [
        ("NOREPLICAS", {"min-replicas-to-write": "1"}, {"min-replicas-to-write": "0"}),
        ("OOM", {"maxmemory": "1"}, {"maxmemory": "0"}),
    ],
)
def test_writes_go_on_when_the_server_takes_them_again(
    server: Any, code: str, break_it: dict[str, str], mend_it: dict[str, str]
) -> None:
    with opened(server.url) as hasty, server.client() as operator:
        script = operator.register_script(WRITE)
        operator.config_set(*next(iter(break_it.items())))
        for write in (lambda: set_key(hasty), lambda: hasty.run(script, ["key"], ["1"])):
            with pytest.raises(RedisUnavailable, match=f"it replied {code}"):
                write()
        patient = hasty.with_patience(30)
        with ThreadPoolExecutor(2) as threads:
            writes = [threads.submit(set_key, patient), threads.submit(patient.run, script, ["key"], ["1"])]
            time.sleep(0.2)
            assert not any(write.done() for write in writes)
            operator.config_set(*next(iter(mend_it.items())))
            assert all(write.result(timeout=30) for write in writes)


def test_writes_go_on_when_the_server_can_save_again(server: Any) -> None:
    with opened(server.url) as hasty, server.client() as operator:
        script = operator.register_script(WRITE)
        (server.folder / "dump.rdb" / "full").mkdir(parents=True)  # no file can be renamed to it
        operator.config_set("save", "3600 1")
        operator.bgsave()
        _await(lambda: operator.info("persistence")["rdb_last_bgsave_status"] == "err", "saving fails")
        for write in (lambda: set_key(hasty), lambda: hasty.run(script, ["key"], ["1"])):
            with pytest.raises(RedisUnavailable, match="it replied MISCONF"):
                write()
        with ThreadPoolExecutor(1) as threads:
            write = threads.submit(set_key, hasty.with_patience(30))
            time.sleep(0.2)
            assert not write.done()
            operator.config_set("stop-writes-on-bgsave-error", "no")
            assert write.result(timeout=30)


def test_a_server_that_is_loading_its_data_is_waited_for(server: Any) -> None:
    with opened(server.url) as hasty, server.client() as operator:
        hasty.pipeline(lambda pipe: [pipe.set(f"key-{number}", "x") for number in range(20_000)])
        server.kill()
        server.launch("--key-load-delay", "200")
        _await(lambda: "LOADING" in _refusal(hasty), "the server is loading its data")
        assert set_key(hasty.with_patience(60))
        assert operator.dbsize() == 20_001


# --- how errors are read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exceptions.ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"), "READONLY"),
        (exceptions.MasterDownError("Link with MASTER is down", status_code="MASTERDOWN"), "MASTERDOWN"),
        (exceptions.BusyLoadingError("Redis is loading", status_code="LOADING"), "LOADING"),
        (exceptions.ClusterDownError("The cluster is down", status_code="CLUSTERDOWN"), "CLUSTERDOWN"),
        (exceptions.TryAgainError("Multiple keys request", status_code="TRYAGAIN"), "TRYAGAIN"),
        (exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), "UNBLOCKED"),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "MISCONF"),
        (exceptions.ResponseError("BUSY Redis is busy running a script"), "BUSY"),
        (
            # Redis 6.2 on an error inside a script
            exceptions.ResponseError(
                "Error running script (call to f_1b): @user_script:8: @user_script: 8: "
                "-READONLY You can't write against a read only replica."
            ),
            "READONLY",
        ),
        (exceptions.ConnectionError("Connection refused"), "Connection refused"),
        (exceptions.TimeoutError("Timeout reading from socket"), "Timeout"),
    ],
)
def test_an_outage_that_passes_is_recognized(error: exceptions.RedisError, said: str) -> None:
    assert said in outage(error)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        exceptions.NoPermissionError("User has no permissions", status_code="NOPERM"),
        exceptions.ResponseError("unknown command 'BUSY', with args beginning with: 'OOM'"),
    ],
)
def test_an_error_that_stays_is_no_outage(error: exceptions.RedisError) -> None:
    assert not outage(error)


def test_an_error_that_stays_is_not_tried_again(retrying: RetryingRedis, redis: Redis) -> None:
    redis.set("key", "text")
    calls = []

    def ask(redis: Redis) -> Any:
        calls.append(1)
        return redis.smembers("key")

    with pytest.raises(RedisUnavailable, match=r"refused a command \(WRONGTYPE\)"):
        retrying.with_patience(60).call(ask)
    assert len(calls) == 1


def test_who_gives_up_reads_the_address_and_the_setting_and_no_password(free_port: int) -> None:
    with (
        opened(f"redis://user:a-password@127.0.0.1:{free_port}/3", patience_seconds=0.2) as retrying,
        pytest.raises(RedisUnavailable) as raised,
    ):
        set_key(retrying)
    message = str(raised.value)
    assert message.startswith(f"Redis at 127.0.0.1:{free_port}/3 is not available (Error 111")
    assert "Connection refused" in message
    assert "DARKROOM_REDIS_URL" in message
    assert "a-password" not in message


def test_the_address_of_a_host_with_colons_can_be_copied(free_port: int) -> None:
    with (
        opened(f"redis://[::1]:{free_port}") as retrying,
        pytest.raises(RedisUnavailable, match=rf"^Redis at \[::1\]:{free_port}/0 "),
    ):
        set_key(retrying)


@pytest.mark.parametrize("user", ["", ":a-wrong-one@"])
def test_a_password_that_is_missing_or_wrong_is_named_and_not_quoted(new_server: Any, user: str) -> None:
    server = new_server()
    with server.client() as redis:
        redis.config_set("requirepass", "the-right-one")
    with (
        opened(f"redis://{user}127.0.0.1:{server.port}/0", patience_seconds=1) as retrying,
        pytest.raises(RedisUnavailable, match="refused access; check the user and the password in ") as raised,
    ):
        set_key(retrying)
    assert "one" not in str(raised.value)


def test_closing_ends_a_long_patience(free_port: int) -> None:
    with (
        ThreadPoolExecutor(1) as threads,
        opened(f"redis://127.0.0.1:{free_port}/0", patience_seconds=3600) as retrying,
    ):
        call = threads.submit(set_key, retrying)
        time.sleep(0.2)
        assert not call.done()
        retrying.close()
        with pytest.raises(RedisUnavailable):
            call.result(timeout=30)


def test_pauses_grow_to_a_second_and_never_overflow() -> None:
    assert [backoff_seconds(failures) for failures in (1, 2, 3, 10, 5000)] == [0.05, 0.1, 0.2, 1.0, 1.0]


def _refusal(retrying: RetryingRedis) -> str:
    """What is said about a write that fails; empty for one that succeeds."""
    try:
        set_key(retrying)
    except RedisUnavailable as error:
        return str(error)
    return ""


def _await(condition: Callable[[], bool], what: str) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(f"not within 30 s: {what}")


def _connected_writers(operator: Redis) -> int:
    """Connections that wait for the answer to a script, or were never told that the server is a replica."""
    return sum(client["cmd"] == "evalsha" and int(client["idle"]) > 1 for client in operator.client_list())


def _unblock(operator: Redis, unblocked: list[int]) -> bool:
    for client in operator.client_list():
        if client["cmd"] == "wait" and operator.client_unblock(int(client["id"]), error=True):
            unblocked.append(int(client["id"]))
            return True
    return False
