"""Commands on kept connections: answers in order, errors that spoil nothing, connections that died, and what we need of redis-py."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

from jobs.state.connection import connect
from jobs.state.wire import KEPT_CONNECTIONS, Wire


@pytest.fixture
def wire(redis_url: str) -> Iterator[Wire]:
    with connect(redis_url) as client:
        yield Wire(client.connection_pool)


def test_answers_come_as_bytes_and_in_their_order(wire: Wire) -> None:
    assert wire.ask([("SET", "key", 1), ("GET", "key"), ("GET", "another"), ("DEL", "key")]) == [b"OK", b"1", None, 1]
    wire.ask([("SET", f"key-{number}", number) for number in range(300)])
    assert wire.ask([("GET", f"key-{number}") for number in range(300)]) == [b"%d" % n for n in range(300)]


def test_an_error_is_raised_when_all_answers_were_read_so_that_the_next_one_is_right(wire: Wire) -> None:
    with pytest.raises(ResponseError):
        wire.ask([("SET", "a", "text"), ("INCR", "a"), ("SET", "b", "2")])
    assert wire.ask([("GET", "b")]) == [b"2"]


def test_an_exchange_that_was_cut_leaves_no_answer_to_the_next(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.ask([("SET", "a", "1"), ("SET", "b", "2")])
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "read_response", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            wire.ask([("GET", "a")])
    assert wire.ask([("GET", "b")]) == [b"2"]


def test_a_connection_that_the_server_closed_is_opened_again(wire: Wire, redis: Redis) -> None:
    [mine] = wire.ask([("CLIENT", "ID")])
    redis.client_kill_filter(_id=mine)
    assert wire.ask([("PING",)]) == [b"PONG"]


def test_a_server_that_is_away_is_an_error_of_redis_py(free_port: int) -> None:
    with connect(f"redis://127.0.0.1:{free_port}/0") as client, pytest.raises(RedisConnectionError):
        Wire(client.connection_pool).ask([("PING",)])


def test_connections_are_kept_and_beyond_a_number_returned_to_the_pool(wire: Wire, redis: Redis) -> None:
    together = threading.Barrier(KEPT_CONNECTIONS + 8)

    def ask(_: int) -> object:
        together.wait(timeout=30)
        return wire.ask([("BLPOP", "nothing", "0.2")])

    with ThreadPoolExecutor(KEPT_CONNECTIONS + 8) as threads:
        list(threads.map(ask, range(KEPT_CONNECTIONS + 8)))
    before = redis.info("stats")["total_connections_received"]
    with ThreadPoolExecutor(KEPT_CONNECTIONS + 8) as threads:
        list(threads.map(ask, range(KEPT_CONNECTIONS + 8)))
    assert redis.info("stats")["total_connections_received"] == before


def test_redis_py_still_has_the_methods_that_we_use() -> None:
    """When this fails after an upgrade, read redis-py's changes of `Connection` before the wire is mended."""
    signatures = {
        name: list(inspect.signature(getattr(Connection, name)).parameters)
        for name in ("pack_commands", "send_packed_command", "read_response", "disconnect")
    }
    assert signatures == {
        "pack_commands": ["self", "commands"],
        "send_packed_command": ["self", "command", "check_health"],
        "read_response": ["self", "disable_decoding", "timeout", "disconnect_on_error", "push_request"],
        "disconnect": ["self", "args", "kwargs"],
    }
    assert isinstance(Connection().retry, Retry)
    assert list(inspect.signature(Retry.call_with_retry).parameters)[1:3] == ["do", "fail"]


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
